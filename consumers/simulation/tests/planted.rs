//! Deliberate bugs in the ledger, each caught within a stated number of seeds, and nothing found without.
//! Run with `--features planted-bugs`.
#![cfg(feature = "planted-bugs")]

use std::fmt::Write as _;
use std::io::Write as _;

use millrace_ledger::planted::{Bug, plant};
use millrace_simulation::many::{OnFailure, run_all};
use millrace_simulation::{Options, Report, run_in_memory};

/// Every bug is caught within so many seeds.
const SEEDS: u64 = 2_000;

fn run(seed: u64, bug: Option<Bug>) -> Report {
    plant(bug);
    run_in_memory(seed, Options::default())
}

#[test]
fn every_planted_bug_is_caught_and_none_is_found_without() {
    let mut table = String::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let run = |seed| run(seed, Some(*bug));
        let summary = run_all(0..SEEDS, 1, OnFailure::Stop, run, |_| ());
        let name = bug.name();
        match summary.failures.first() {
            None => missed.push(name),
            Some(report) => {
                let why = report.failure.as_ref().map_or("", |failure| &failure.why);
                let why: String = why.chars().take(110).collect();
                writeln!(table, "{name:<22} seed {:>4}  {why}", report.seed).unwrap();
            }
        }
    }
    let clean = run_all(0..SEEDS, 1, OnFailure::Stop, |seed| run(seed, None), |_| ());
    assert!(clean.failures.is_empty(), "{:?}", clean.failures);
    // Shown with --nocapture.
    std::io::stdout().write_all(table.as_bytes()).unwrap();
    assert!(missed.is_empty(), "not caught: {missed:?}\n{table}");
}
