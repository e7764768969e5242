//! `millrace migrate`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use millrace_ledger::store::schema;

use crate::cli::{Database, print};

/// Flags of `millrace migrate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Safe to repeat, and safe to run while services of this version work.

Example:
  DATABASE_URL=postgres://millrace@db/millrace millrace migrate"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
}

/// Migrates.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect().await?;
    let (before, after) = schema::migrate(&mut connection)
        .await
        .context("migrating")?;
    if before == after {
        print(&format!(
            "the database is at schema version {after} already"
        ));
    } else {
        print(&format!("migrated from schema version {before} to {after}"));
    }
    Ok(ExitCode::SUCCESS)
}
