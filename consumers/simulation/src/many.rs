//! Many seeds, on several threads. Each run is on one thread; which one does not matter to it.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::simulation::Report;
use crate::world::Counts;

/// What came of many runs.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many runs are done.
    pub runs: u64,
    /// All that they went through.
    pub counts: Counts,
    /// A digest of every step of every run, whatever their order: the same seeds give the same one.
    pub trace_hash: u64,
    /// Those that failed; seeds ascending.
    pub failures: Vec<Report>,
}

/// What a failure does to the other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// No further run is begun.
    Stop,
    /// All are run.
    GoOn,
}

/// Runs every seed with `run` on `jobs` threads. `progress` is called after each run, one at a time.
pub fn run_all(
    seeds: Range<u64>,
    jobs: usize,
    on_failure: OnFailure,
    run: impl Fn(u64) -> Report + Sync,
    progress: impl Fn(&Summary) + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let report = run(seed);
            if report.failure.is_some() && on_failure == OnFailure::Stop {
                stop.store(true, Ordering::Relaxed);
            }
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(report);
            progress(&summary);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|report| report.seed);
    summary
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, report: Report) {
        self.runs += 1;
        self.counts.merge(&report.counts);
        self.trace_hash = self.trace_hash.wrapping_add(report.trace_hash);
        if report.failure.is_some() {
            self.failures.push(report);
        }
    }
}
