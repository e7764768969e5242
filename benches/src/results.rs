//! Files of runs, one JSON object a line, and what is told of them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a run to a file; makes its directory.
pub fn append(file: &Path, record: &impl Serialize) -> anyhow::Result<()> {
    let write = || {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(&line)
    };
    write().with_context(|| file.display().to_string())
}

/// Reads all runs of a file.
pub fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    (1..)
        .zip(text.lines())
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| {
                format!(
                    "{}:{number}: not a result of this program, which reads its own only: bench, open-loop and query \
                     keep different figures",
                    file.display()
                )
            })
        })
        .collect()
}

/// Writes a line for the person who runs this.
#[expect(clippy::print_stdout, reason = "the one place that writes results")]
pub fn say(line: &str) {
    println!("{line}");
}
