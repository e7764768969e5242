//! What the benchmarks run on.

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

fn file(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}
