//! `millrace import`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use millrace_importer::{Destination, Error, Format, Options, Progress, prepare};

use crate::cli::{Kafka, Usage, print};
use crate::shutdown;

/// Flags of `millrace import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ids are derived from the rows: importing a file twice posts it once. A refused row is named by \
its line, the rest go on; a file of refused rows from an earlier import is replaced. Verdicts, duplicates \
among them, are the ledger's: see reports.conservation. Exit status: 0; 2 when rows were refused; 1 when \
the import could not begin or end: mend what is named and import the file again.

Examples:
  millrace import bank.csv.gz --map bank.toml --dry-run
  millrace import bank.csv.gz --map bank.toml
  zstd -dc transactions.ndjson.zst | millrace import - --format ndjson"
)]
pub struct Flags {
    /// The file: .csv, .ndjson or .avro, also with .gz or .zst; - is standard input.
    file: PathBuf,
    /// How columns become transactions; CSV needs it.
    #[arg(long)]
    map: Option<PathBuf>,
    /// csv, ndjson or avro, where the name does not tell.
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Where refused rows are written [default: NAME.refused.csv in the working directory].
    #[arg(long)]
    refused: Option<PathBuf>,
    /// Read and check everything, publish nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    kafka: Kafka,
}

/// Imports.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let at_terminal = std::io::stderr().is_terminal();
    let options = Options {
        input: flags.file,
        map: flags.map,
        format: flags.format,
        refused: flags.refused,
        progress: if at_terminal {
            Progress::Bar
        } else {
            Progress::Lines
        },
    };
    let prepared = tokio::task::spawn_blocking(move || prepare(&options)).await?;
    let import = prepared.map_err(|error| match error {
        Error::Usage(text) => anyhow::Error::from(Usage(text)),
        other => other.into(),
    })?;
    let stop = async {
        if let Err(error) = shutdown::requested().await {
            tracing::warn!(%error, "signals are not heard");
            std::future::pending::<()>().await;
        }
    };
    let summary = if flags.dry_run {
        import.run(Destination::DryRun, stop).await
    } else {
        let publisher = flags.kafka.publisher().await?;
        import.run(Destination::Topic(&publisher), stop).await
    };
    print(summary.to_string().trim_end());
    Ok(ExitCode::from(summary.exit().code()))
}

fn format(text: &str) -> Result<Format, String> {
    Format::ALL
        .into_iter()
        .find(|format| format.as_str() == text)
        .ok_or_else(|| "csv, ndjson or avro".into())
}
