//! The seeded fault simulation of the ledger group.
//!
//! It runs the ledger's own lanes: their loop, assignment, phases, decisions and memory. Around them are a
//! simulated log and store, virtual time, and one scheduler that draws everything from a seed: who goes on,
//! how long a call takes, what fails. A lane waits for its turn at every effect, so it can be stopped, killed
//! or overtaken between any two of them; the same seed goes the same way to the last step.
//!
//! | module | holds |
//! |---|---|
//! | [`simulation`] | one run: the scheduler, faults between steps, the end |
//! | [`many`] | many seeds, on several threads |
//! | `world` | what all parts share: time, turns, randomness |
//! | [`fault`] | what can go wrong, and how often |
//! | `workload`, `rows` | what is sent, and what is written |
//! | `broker`, `log` | the topic and the group, and how a lane sees them |
//! | `gate`, `sessions` | how a lane sees the store: turns, faults, locks |
//! | [`backend`] | the database behind it: [`memory`] (its `tables`) or [`postgres`] |
//! | `operator`, `parking` | who sets policies, accepts gaps, and replays or discards what is parked |
//! | [`oracle`], `judge` | what must have come of it |
//! | [`trace`] | what happened |

pub mod backend;
mod broker;
pub mod fault;
mod gate;
mod judge;
mod log;
pub mod many;
pub mod memory;
mod operator;
pub mod oracle;
mod parking;
pub mod postgres;
mod rows;
mod sessions;
pub mod simulation;
mod tables;
pub mod trace;
mod workload;
mod world;

pub use simulation::{Failure, Options, Report};
pub use world::Counts;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Runs one seed over the database in memory. A panic of the lanes is a failure like any other.
pub fn run_in_memory(seed: u64, options: Options) -> Report {
    run_over(seed, options, memory::MemoryBackend::new(true))
}

/// The same without failovers: it must go as a run over Postgres does.
pub fn run_in_memory_as_over_postgres(seed: u64, options: Options) -> Report {
    run_over(seed, options, memory::MemoryBackend::new(false))
}

fn run_over(seed: u64, options: Options, backend: memory::MemoryBackend) -> Report {
    let run = || {
        let mut run = pin!(simulation::run(seed, options, backend));
        match run.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => report,
            Poll::Pending => unreachable!("nothing in memory is waited for"),
        }
    };
    let run = std::panic::AssertUnwindSafe(run);
    std::panic::catch_unwind(run).unwrap_or_else(|_| Report::panicked(seed))
}
