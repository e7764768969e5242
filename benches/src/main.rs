//! `bench`: the canonical workload, end to end and from the outside: it drives the `millrace` binary
//! against real servers, reads what that costs from `/proc`, and checks every result.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the flags |
//! | [`case`] | what one run is to do; the named suites |
//! | [`load`] | what is published, and what must come out of it |
//! | [`scratch`] | a database and a topic that live as long as one run |
//! | [`programs`] | running `millrace` as a tool and as a service |
//! | [`processes`] | CPU and memory of processes, from `/proc` |
//! | [`meter`] | all costs between two moments |
//! | [`run`] | one run, from an empty database to checked figures |
//! | [`checks`] | whether the result is right |
//! | [`record`], [`conditions`] | what is kept of a run |
//! | [`report`] | Markdown tables of kept runs |

mod case;
mod checks;
mod cli;
mod load;
mod record;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser as _;
use millrace_benches::results::{self, say};
use millrace_benches::{conditions, meter, programs, scratch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::case::Case;
use crate::cli::Cli;
use crate::record::Record;
use crate::run::Bench;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.report {
        Some(file) => record::read(file).map(|records| print_report(&records)),
        None => measure(&cli),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let bench = Bench::new(cli).await?;
        let cases = cli.cases();
        let total = cases.len() * cli.runs;
        let mut signals = Signals::new()?;
        let mut records = Vec::with_capacity(total);
        let mut failed = false;
        // Every case once, then every case again: a machine that drifts drifts for all of them.
        for (place, case) in cases.iter().cycle().take(total).enumerate() {
            let Some(outcome) = run_one(&bench, case, place, &mut signals).await? else {
                bail!("interrupted");
            };
            let progress = format!("[{}/{total}] {}", place + 1, case.name);
            match outcome {
                Ok(record) => {
                    results::append(&cli.results, &record)?;
                    say(&format!("{progress}: {}", record.summary()));
                    records.push(record);
                }
                Err(error) => {
                    say(&format!("{progress}: FAILED: {error:#}"));
                    failed = true;
                }
            }
        }
        let code = print_report(&records);
        Ok(if failed { ExitCode::FAILURE } else { code })
    })
}

/// One run with a database and a topic of its own, which are gone afterwards; none when a signal ended it.
async fn run_one(
    bench: &Bench,
    case: &Case,
    place: usize,
    signals: &mut Signals,
) -> anyhow::Result<Option<anyhow::Result<Record>>> {
    let scratch = bench.scratch(place).await?;
    let outcome = tokio::select! {
        outcome = bench.run(case, &scratch) => Some(outcome),
        () = signals.received() => None,
    };
    scratch.remove().await?;
    Ok(outcome)
}

/// What asks this program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prints the tables. A run whose result was wrong fails the whole.
fn print_report(records: &[Record]) -> ExitCode {
    say("");
    say(&report::markdown(records));
    let failures: Vec<_> = records.iter().flat_map(|r| &r.failures).collect();
    for failure in &failures {
        say(&format!("FAILED: {failure}"));
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
