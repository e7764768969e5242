//! What the benchmarks run on.

use std::process::Command;

/// The processor's name; empty where the system does not tell.
pub fn cpu_model() -> String {
    let text = file("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(": "));
    model.map_or_else(String::new, |(_, model)| model.to_owned())
}

/// The kernel's release; empty where the system does not tell.
pub fn kernel() -> String {
    file("/proc/sys/kernel/osrelease")
}

/// The commit of the working directory, with a plus sign when something was changed since.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Results of earlier runs are no change of what is measured.
    let changes = git(&["status", "--porcelain", "--", ".", ":!benches/results"])?;
    let mark = if changes.is_empty() { "" } else { "+" };
    Some(format!("{commit}{mark}"))
}

fn file(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}
