//! Files of runs, one JSON object a line, and what is told of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a run to a file; makes its directory.
pub fn append(file: &Path, record: &impl Serialize) -> anyhow::Result<()> {
    let write = || {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(file)?;
        let mut line = Vec::new();
        if !ends_a_line(&mut file)? {
            line.push(b'\n');
        }
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        file.write_all(&line)
    };
    write().with_context(|| file.display().to_string())
}

/// Whether what is appended begins a line: a run that was cut off may have left a part of one.
fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Reads all runs of a file.
pub fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    ensure!(!text.is_empty(), "{}: no results", file.display());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_line_that_was_cut_off_is_a_line_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results").join("runs.jsonl");
        append(&file, &1).unwrap();
        append(&file, &2).unwrap();
        assert_eq!(read::<u32>(&file).unwrap(), [1, 2]);
        fs::write(&file, "3").unwrap();
        append(&file, &4).unwrap();
        assert_eq!(read::<u32>(&file).unwrap(), [3, 4]);
        fs::write(&file, "").unwrap();
        let told = read::<u32>(&file).unwrap_err().to_string();
        assert!(told.ends_with("runs.jsonl: no results"), "{told}");
    }
}
