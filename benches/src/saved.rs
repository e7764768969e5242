//! What earlier runs have kept, shown again: the same flags in each program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;
use serde::de::DeserializeOwned;

use crate::results::{self, say};

/// The flags that measure nothing.
#[derive(Debug, Clone, Args)]
pub struct Saved {
    /// Measures nothing: prints the tables of saved results.
    #[arg(long, value_name = "FILE.jsonl")]
    report: Option<PathBuf>,
    /// Measures nothing: draws saved results, as SVG files in this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "report")]
    plot: Option<PathBuf>,
    /// The saved results to draw.
    #[arg(
        value_name = "FILE.jsonl",
        requires = "plot",
        conflicts_with = "report"
    )]
    files: Vec<PathBuf>,
}

impl Saved {
    /// Shows what is asked for: `print` gets the results of a file, `draw` a directory and a file and gives what it has
    /// drawn. None when a run is asked for.
    pub fn show<R: DeserializeOwned>(
        &self,
        print: impl FnOnce(&[R]) -> anyhow::Result<ExitCode>,
        draw: impl Fn(&Path, &Path) -> anyhow::Result<Vec<PathBuf>>,
    ) -> Option<anyhow::Result<ExitCode>> {
        match (&self.report, &self.plot) {
            (Some(file), _) => Some(results::read(file).and_then(|kept| print(&kept))),
            (None, Some(directory)) => Some(self.draw(directory, draw)),
            (None, None) => None,
        }
    }

    fn draw(
        &self,
        directory: &Path,
        draw: impl Fn(&Path, &Path) -> anyhow::Result<Vec<PathBuf>>,
    ) -> anyhow::Result<ExitCode> {
        ensure!(
            !self.files.is_empty(),
            "--plot {}: which results? Name their files after it, as in --plot DIR FILE.jsonl",
            directory.display()
        );
        for (place, file) in self.files.iter().enumerate() {
            let namesake = |other: &&PathBuf| other.file_stem() == file.file_stem();
            if let Some(other) = self.files[..place].iter().find(namesake) {
                bail!(
                    "--plot {}: the charts of {} would be written over those of {}: draw them in two directories",
                    directory.display(),
                    file.display(),
                    other.display()
                );
            }
        }
        for file in &self.files {
            for drawn in draw(directory, file)? {
                say(&drawn.display().to_string());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the program ends with: an error is told.
pub fn end(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        say(&format!("error: {}", told(&error)));
        ExitCode::FAILURE
    })
}

/// The error and what is behind it: some errors tell their source themselves.
pub fn told(error: &anyhow::Error) -> String {
    let mut causes = error.chain().map(ToString::to_string);
    let first = causes.next().unwrap_or_default();
    causes.fold(first, |text, cause| {
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        saved: Saved,
    }

    fn show(flags: &[&str]) -> Option<anyhow::Result<ExitCode>> {
        let saved = Cli::parse_from([&["program"], flags].concat()).saved;
        saved.show(
            |_: &[u32]| panic!("nothing is to be printed"),
            |directory, file| Ok(vec![directory.join(file)]),
        )
    }

    #[test]
    fn charts_need_results() {
        let told = show(&["--plot", "target/plots"]).unwrap().unwrap_err();
        assert!(told.to_string().contains("--plot DIR FILE.jsonl"), "{told}");
        assert!(
            show(&["--plot", "target/plots", "a.jsonl"])
                .unwrap()
                .is_ok()
        );
        assert!(show(&[]).is_none());
    }

    #[test]
    fn charts_of_two_files_are_not_written_over_each_other() {
        let plot = ["--plot", "plots", "a/x.jsonl", "b/y.jsonl", "b/x.jsonl"];
        let told = show(&plot).unwrap().unwrap_err().to_string();
        let files = told.contains("a/x.jsonl") && told.contains("b/x.jsonl");
        assert!(files && !told.contains("y.jsonl"), "{told}");
        assert!(show(&plot[..4]).unwrap().is_ok());
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("refused")
            .context("talking to it: refused")
            .context("connecting");
        assert_eq!(super::told(&error), "connecting: talking to it: refused");
    }
}
