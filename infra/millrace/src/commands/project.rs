//! `millrace project`.

use std::process::ExitCode;

use clap::Args;

use crate::cli::Database;

/// Flags of `millrace project`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
}

/// Runs until asked to stop.
pub async fn run(_flags: Flags) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
