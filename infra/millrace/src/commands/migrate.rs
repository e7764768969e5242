//! `millrace migrate`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use millrace_ledger::store::{Served, schema, served};

use crate::cli::{Database, print};

/// Flags of `millrace migrate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Safe to repeat, and safe to run while services of this version work.

A ledger can be split over several databases: each serves partitions of its own of the same topic, and has lanes \
(millrace ledger --group) in a consumer group of its own; start as many lanes for each as the topic has partitions, for \
the group gives out all of them. What a database has begun to serve it serves for ever; others can \
be added, if no other database has begun them.

Examples:
  DATABASE_URL=postgres://millrace@db/millrace millrace migrate
  DATABASE_URL=postgres://millrace@db-1/millrace millrace migrate --partitions 0-5
  DATABASE_URL=postgres://millrace@db-2/millrace millrace migrate --partitions 6-11"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
    /// Which of the topic's partitions this database serves, such as 0-5 or 0,3,7-9, or all
    /// [default: as it is; of a new database all].
    #[arg(long)]
    partitions: Option<Served>,
}

/// Migrates.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect().await?;
    let migrated = match &flags.partitions {
        None => schema::migrate(&mut connection).await,
        Some(served) => schema::migrate_to_serve(&mut connection, served).await,
    };
    let (before, after) = migrated.context("migrating")?;
    if before == after {
        print(&format!(
            "the database is at schema version {after} already"
        ));
    } else {
        print(&format!("migrated from schema version {before} to {after}"));
    }
    let served = served::read(&mut connection).await?;
    if !served.is_all() {
        print(&format!("it serves partitions {served}"));
    }
    Ok(ExitCode::SUCCESS)
}
