//! `latency`: what clients of the HTTP services wait for, at a fixed offered rate.
//!
//! The load is open: request `n` is due at a moment that nothing can move, and its latency counts from
//! there, so a service that stalls is charged for everything that was due meanwhile (no coordinated
//! omission). Connections are bounded: a request that is due while all are busy waits, and counts.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the flags |
//! | [`client`] | one keep-alive connection, cheap in CPU |
//! | [`load`] | what is due when, and its body |
//! | [`posted`] | whether all that was accepted is posted |
//! | [`run`] | the connections at work, and what they measured |
//! | [`record`] | what is kept of a run |

mod cli;
mod client;
mod load;
mod posted;
mod record;
mod run;

use std::process::ExitCode;

use clap::Parser as _;
use millrace_benches::results::{self, say};

use crate::cli::Cli;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let record = runtime.block_on(run::run(cli.clone()))?;
    results::append(&cli.results, &record)?;
    say(&record.summary());
    Ok(if record.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
