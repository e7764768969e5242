//! `bench`: the canonical workload, end to end and from the outside: it drives the `millrace` binary
//! against real servers, reads what that costs from `/proc`, and checks every result.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the flags |
//! | [`case`] | what one run is to do |
//! | [`suites`] | the named suites: cases, and what is done with a database each |
//! | [`load`] | what is published, and what must come out of it |
//! | [`scratch`] | a database and a topic that live as long as one run |
//! | [`programs`] | running `millrace` as a tool and as a service |
//! | [`processes`] | CPU and memory of processes, from `/proc` |
//! | [`meter`] | all costs between two moments |
//! | [`run`] | one run, from an empty database to checked figures |
//! | [`drain`] | one drain, and what it cost |
//! | [`rebuild`] | read models, folded from nothing |
//! | [`checks`] | whether the result is right |
//! | [`record`], [`conditions`] | what is kept of a run |
//! | [`rows`] | runs of the same case, together |
//! | [`report`], [`plots`] | Markdown tables and charts of kept runs |
//! | [`peers`] | charts of the peers' runs |

mod case;
mod checks;
mod cli;
mod drain;
mod load;
mod peers;
mod plots;
mod rebuild;
mod record;
mod report;
mod rows;
mod run;
mod suites;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser as _;
use millrace_benches::results::{self, say};
use millrace_benches::saved::{end, told};
use millrace_benches::signals::Signals;
use millrace_benches::{conditions, meter, programs, scratch};

use crate::cli::Cli;
use crate::record::Kept;
use crate::run::Bench;
use crate::suites::Plan;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let shown = cli
        .saved
        .show(|kept: &[Kept]| Ok(print_report(kept)), plots::draw);
    end(shown.unwrap_or_else(|| measure(&cli)))
}

fn measure(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let plans = cli.plans()?;
        let bench = Bench::new(cli).await?;
        let total = plans.len() * cli.runs;
        let mut signals = Signals::new()?;
        let mut all = Vec::with_capacity(total);
        let mut failed = false;
        // Everything once, then everything again: a machine that drifts drifts for all of it.
        for (place, plan) in plans.iter().cycle().take(total).enumerate() {
            let Some(outcome) = run_one(&bench, plan, place, &mut signals).await? else {
                bail!("interrupted");
            };
            let progress = format!("[{}/{total}]", place + 1);
            match outcome {
                Ok(kept) => {
                    for kept in kept {
                        results::append(&cli.results, &kept)?;
                        say(&format!("{progress} {}", kept.summary()));
                        all.push(kept);
                    }
                }
                Err(error) => {
                    say(&format!(
                        "{progress} {}: FAILED: {}",
                        plan.name(),
                        told(&error)
                    ));
                    failed = true;
                }
            }
        }
        let code = print_report(&all);
        Ok(if failed { ExitCode::FAILURE } else { code })
    })
}

/// One run with a database and a topic of its own, which are gone afterwards; none when a signal ended it.
async fn run_one(
    bench: &Bench,
    plan: &Plan,
    place: usize,
    signals: &mut Signals,
) -> anyhow::Result<Option<anyhow::Result<Vec<Kept>>>> {
    let scratch = bench.scratch(place).await?;
    let outcome = tokio::select! {
        outcome = bench.run(plan, &scratch) => Some(outcome),
        () = signals.received() => None,
    };
    scratch.remove().await?;
    Ok(outcome)
}

/// Prints the tables. A run whose result was wrong fails the whole.
fn print_report(kept: &[Kept]) -> ExitCode {
    say("");
    say(&report::markdown(kept));
    let failures: Vec<_> = kept.iter().flat_map(Kept::failures).collect();
    for failure in &failures {
        say(&format!("FAILED: {failure}"));
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
