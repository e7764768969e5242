//! `open-loop`: what clients wait for at a fixed offered rate, over HTTP and straight through Kafka.
//!
//! The load is open: request `n` is due at a moment that nothing can move, and its latency counts from
//! there, so a service that stalls is charged for everything that was due meanwhile (no coordinated
//! omission). Connections are bounded: a request that is due while all are busy waits, and that counts.
//!
//! | module | holds |
//! |---|---|
//! | [`case`] | one load: how it is offered, and how fast |
//! | [`cli`] | the flags |
//! | [`load`] | what is due when, and its body |
//! | [`place`] | the servers and services of one run |
//! | [`offer`] | one load, from its start to its last answer |
//! | [`http`], [`kafka`] | the two ways in |
//! | [`look`] | looking for samples in the query API |
//! | [`posted`] | whether all that was accepted is posted |
//! | [`run`] | one run, from starting the services to checked figures |
//! | [`record`] | what is kept of a run |
//! | [`report`], [`plots`] | a Markdown table and charts of kept runs |

mod case;
mod cli;
mod http;
mod kafka;
mod load;
mod look;
mod offer;
mod place;
mod plots;
mod posted;
mod record;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser as _;
use millrace_benches::results::{self, say};
use millrace_benches::saved::{end, told};
use millrace_benches::signals::Signals;

use crate::case::{Case, Shape};
use crate::cli::Cli;
use crate::record::Record;
use crate::run::OpenLoop;

/// What runs that are not kept offer.
const PRACTICE: Case = Case::new(Shape::Single, 5_000, 1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let shown = cli.saved.show(print, plots::draw);
    end(shown.unwrap_or_else(|| measure(&cli)))
}

fn measure(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (records, failed) = runtime.block_on(measure_all(cli))?;
    let code = print(&records)?;
    Ok(if failed { ExitCode::FAILURE } else { code })
}

/// All runs, and whether one of them came to no figures.
async fn measure_all(cli: &Cli) -> anyhow::Result<(Vec<Record>, bool)> {
    let open_loop = OpenLoop::new(cli)?;
    let mut signals = Signals::new()?;
    let cases = cli.cases();
    let total = cli.practice + cases.len() * cli.runs;
    let mut records = Vec::with_capacity(total);
    let mut failed = false;
    let practice = std::iter::repeat_n(&PRACTICE, cli.practice);
    // Every case once, then every case again: a machine that drifts drifts for all of them.
    let all = practice.chain(cases.iter().cycle()).take(total);
    for (done, (place, case)) in (1..).zip(all).enumerate() {
        let is_practice = done < cli.practice;
        let kept = if is_practice { ", not kept" } else { "" };
        say(&format!("[{place}/{total}] {case}{kept}"));
        let Some(outcome) = open_loop.run(*case, place, &mut signals).await? else {
            bail!("interrupted");
        };
        match outcome {
            Ok(record) if is_practice => say(&record.summary()),
            Ok(record) => {
                results::append(&cli.results, &record)?;
                say(&record.summary());
                records.push(record);
            }
            Err(error) => {
                say(&format!("  FAILED: {}", told(&error)));
                failed = true;
            }
        }
    }
    Ok((records, failed))
}

/// Prints the table. A run that was not clean fails the whole.
fn print(records: &[Record]) -> anyhow::Result<ExitCode> {
    say("");
    say(&report::markdown(records)?);
    let mut code = ExitCode::SUCCESS;
    for record in records {
        for failure in &record.failures {
            say(&format!("FAILED: {}: {failure}", record.case));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
