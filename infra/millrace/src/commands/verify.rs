//! `millrace verify`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use millrace_ledger::verify::{Report, verify};
use tracing::info;

use crate::cli::{Database, print};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Flags of `millrace verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runs beside live load on one snapshot. Exit status: 0 when everything holds, 1 with each place
where it does not.

Example:
  millrace verify --database-url postgres://millrace@db/millrace"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
}

/// Verifies.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect_migrated().await?;
    let start = Instant::now();
    let mut shown = start;
    let progress = |report: &Report| {
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            info!(
                partitions = report.partitions,
                batches = report.batches,
                rows = report.rows,
                "verifying"
            );
        }
    };
    let report = verify(&mut connection, progress)
        .await
        .context("verifying")?;
    let Report {
        partitions,
        batches,
        rows,
        read_models,
        findings,
    } = &report;
    for finding in findings {
        print(&format!(
            "FAILED {}: {}: {}",
            finding.check, finding.place, finding.detail
        ));
    }
    let seconds = start.elapsed().as_secs_f64();
    print(&format!(
        "{} partitions, {batches} batches, {rows} rows, balances and {read_models} read models in \
         {seconds:.1} s: {}",
        partitions,
        if findings.is_empty() {
            "everything holds".into()
        } else {
            format!("{} failures", findings.len())
        }
    ));
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
