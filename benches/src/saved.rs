//! What earlier runs have kept, shown again: the same flags in each program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
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
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
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
}
