//! `query`: what the query API serves beside full ingest, and what each costs the other.
//!
//! The readers are a closed loop: each of a few connections asks again as soon as it is answered. What is
//! found is what the service can do for so many clients, and not how long they wait at a rate of theirs.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the flags |
//! | [`endpoint`] | what is asked for |
//! | [`readers`] | the connections at work |
//! | [`ingest`] | publishing and draining transactions |
//! | [`run`] | all windows on one ledger, from an empty database to the proof |
//! | [`record`] | what is kept of a window |
//! | [`report`], [`plots`] | Markdown tables and charts of kept windows |

mod cli;
mod endpoint;
mod ingest;
mod plots;
mod readers;
mod record;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser as _;
use millrace_benches::results::{self, say};
use millrace_benches::saved::end;
use millrace_benches::signals::Signals;

use crate::cli::Cli;
use crate::record::Record;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let shown = cli
        .saved
        .show(|records: &[Record]| Ok(print(records)), plots::draw);
    end(shown.unwrap_or_else(|| Ok(print(&measure(&cli)?))))
}

fn measure(cli: &Cli) -> anyhow::Result<Vec<Record>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let Some(records) = run::run(cli, &mut signals).await? else {
            bail!("interrupted");
        };
        for record in &records {
            results::append(&cli.results, record)?;
        }
        Ok(records)
    })
}

/// Prints the tables. What failed a check fails the whole.
fn print(records: &[Record]) -> ExitCode {
    say("");
    say(&report::markdown(records));
    let mut failures: Vec<_> = records.iter().flat_map(|r| &r.failures).collect();
    failures.dedup();
    for failure in &failures {
        say(&format!("FAILED: {failure}"));
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
