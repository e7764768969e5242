//! Many seeds in memory.

use std::thread::available_parallelism;

use millrace_simulation::fault::Fault;
use millrace_simulation::many::{OnFailure, run_all};
use millrace_simulation::{Options, run_in_memory};

/// How many seeds the test command runs. `millrace sim --seeds` runs more.
const SEEDS: u64 = 4_000;

#[test]
fn every_seed_keeps_the_promise_and_every_fault_has_struck() {
    let jobs = available_parallelism().map_or(1, usize::from);
    let run = |seed| run_in_memory(seed, Options::default());
    let summary = run_all(0..SEEDS, jobs, OnFailure::Stop, run, |_| ());
    if let Some(report) = summary.failures.first() {
        let failure = report.failure.as_ref().unwrap();
        let last = failure.last.join("\n");
        panic!("{last}\nseed {}: {}", report.seed, failure.why);
    }
    assert_eq!(summary.runs, SEEDS);
    let counts = summary.counts;
    for fault in Fault::ALL {
        assert!(
            counts.faults.of(*fault) > 0,
            "{} never struck",
            fault.name()
        );
    }
    let reached = [
        counts.crashes,
        counts.rebalances,
        counts.zombie_writes,
        counts.zombie_commits,
        counts.frozen_ended,
        counts.accepted,
        counts.policies,
        counts.resolved,
    ];
    assert!(reached.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn the_same_seed_goes_the_same_way() {
    for seed in 0..50 {
        let run = || run_in_memory(seed, Options::default());
        assert_eq!(run(), run(), "seed {seed}");
    }
    let hashes = [1, 2].map(|seed| run_in_memory(seed, Options::default()).trace_hash);
    assert_ne!(hashes[0], hashes[1]);
}
