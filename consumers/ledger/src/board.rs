//! The board: how every partition of this process is, for readiness and for people.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::assignment::State;
use crate::kafka::log::Bounds;
use crate::observe;
use crate::record::Batch;
use crate::store::PartitionStatus;

/// What all lanes of a process share.
#[derive(Debug, Default)]
struct Shared {
    /// With the lane that said so.
    partitions: BTreeMap<i32, (usize, PartitionStatus)>,
    lanes: BTreeMap<usize, Report>,
}

/// What a lane last said.
#[derive(Debug)]
struct Report {
    at: Instant,
    /// What keeps it from its work; empty when nothing does.
    problems: Vec<String>,
}

impl Report {
    /// Since when nothing was heard of the lane, if that is long.
    fn silence(&self, lane: usize) -> Option<String> {
        let silence = self.at.elapsed();
        (silence > SILENCE_MAX).then(|| {
            let seconds = silence.as_secs();
            format!("lane {lane} has not reported for {seconds} s")
        })
    }
}

impl Shared {
    /// What is to be said of a lane's partition instead of its last words, if the lane is silent.
    fn silent(&self, lane: usize, status: &PartitionStatus) -> Option<PartitionStatus> {
        let silence = self.lanes.get(&lane)?.silence(lane)?;
        (status.state != "stopped").then(|| status.clone().silent(silence))
    }
}

/// A lane reports each second, and seldom waits for anything else much longer than this.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// One lane's handle on the board of its process.
#[derive(Debug, Default)]
pub struct Board {
    shared: Arc<Mutex<Shared>>,
    lane: usize,
    ages: HashMap<i32, Age>,
}

/// From what the age of the oldest unapplied record is told. Microseconds since 1970.
#[derive(Debug, Default, Clone, Copy)]
struct Age {
    /// When the last applied record came in.
    last_applied_at: i64,
    /// When nothing was left to apply.
    caught_up_at: i64,
}

/// A picture of the board.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Every partition of this process, ascending.
    pub partitions: Vec<PartitionStatus>,
    /// How many lanes there are.
    pub lanes: usize,
    /// What keeps lanes from their work, each thing once.
    pub problems: Vec<String>,
}

impl Picture {
    /// Whether this process does what it should: it reaches Kafka and the database, and every
    /// partition that it owns is active.
    pub fn is_ready(&self) -> bool {
        self.lanes > 0
            && self.problems.is_empty()
            && self
                .partitions
                .iter()
                .all(|partition| partition.state == "active")
    }
}

impl Board {
    /// The handle of another lane on the same board.
    #[must_use]
    pub fn lane(&self, lane: usize) -> Self {
        self.report(lane, vec!["starting".into()]);
        Self {
            shared: Arc::clone(&self.shared),
            lane,
            ages: HashMap::new(),
        }
    }

    /// How things are now.
    pub fn picture(&self) -> Picture {
        self.with(|shared| {
            let mut problems: BTreeSet<_> = BTreeSet::new();
            for (lane, report) in &shared.lanes {
                problems.extend(report.problems.iter().cloned());
                problems.extend(report.silence(*lane));
            }
            let partitions = shared.partitions.values().map(|(lane, status)| {
                shared
                    .silent(*lane, status)
                    .unwrap_or_else(|| status.clone())
            });
            Picture {
                partitions: partitions.collect(),
                lanes: shared.lanes.len(),
                problems: problems.into_iter().collect(),
            }
        })
    }

    /// Says in the metrics what the lanes that are silent do not: their last words are true no more. To be
    /// called now and then.
    pub fn tell_silent(&self) {
        self.with(|shared| {
            let silent = shared.partitions.values();
            let silent = silent.filter_map(|(lane, status)| shared.silent(*lane, status));
            silent.for_each(|status| observe::partition(&status));
        });
    }

    /// Another lane's, or nobody's.
    pub(crate) fn remove(&mut self, partitions: impl Iterator<Item = i32>) {
        for partition in partitions {
            self.ages.remove(&partition);
            self.with(|shared| {
                if shared.partitions.remove(&partition).is_some() {
                    observe::gone(partition);
                }
            });
        }
    }

    /// A partition is taken over: its last applied record came in then, milliseconds since 1970.
    pub(crate) fn taken_over(&mut self, partition: i32, last_applied_ms: Option<i64>) {
        let last_applied_at = last_applied_ms.unwrap_or(0).saturating_mul(1_000);
        let age = self.ages.entry(partition).or_default();
        age.last_applied_at = age.last_applied_at.max(last_applied_at);
    }

    /// A batch is committed.
    pub(crate) fn applied(&mut self, batch: &Batch<'_>) {
        for slice in batch.slices() {
            if let Some(timestamp) = batch.records(slice).last().and_then(|r| r.timestamp) {
                let age = self.ages.entry(slice.log.partition).or_default();
                age.last_applied_at = timestamp.saturating_mul(1_000);
            }
        }
    }

    /// A partition's status, as of `now` (microseconds since 1970).
    pub(crate) fn status(
        &mut self,
        partition: i32,
        state: &State,
        bounds: Option<Bounds>,
        now: i64,
    ) -> PartitionStatus {
        let age = self.ages.entry(partition).or_default();
        let behind = state
            .position()
            .zip(bounds)
            .is_none_or(|(position, bounds)| position < bounds.end);
        if !behind {
            age.caught_up_at = now;
        }
        let detail = match state {
            State::Stopped { stop, .. } => stop.to_string(),
            State::Unchecked | State::Elsewhere | State::Active(_) => String::new(),
        };
        PartitionStatus {
            partition,
            state: state.name(),
            detail,
            position: state.position(),
            bounds,
            oldest_unapplied_at: behind
                .then(|| age.last_applied_at.max(age.caught_up_at))
                .filter(|at| *at > 0),
            updated_at: now,
        }
    }

    /// Shows the lane's partitions to everybody.
    pub(crate) fn publish(&self, statuses: Vec<PartitionStatus>, problems: &[String]) {
        self.report(self.lane, problems.to_vec());
        self.with(|shared| {
            for status in statuses {
                let partition = status.partition;
                shared.partitions.insert(partition, (self.lane, status));
            }
        });
    }

    fn report(&self, lane: usize, problems: Vec<String>) {
        let at = Instant::now();
        self.with(|shared| shared.lanes.insert(lane, Report { at, problems }));
    }

    fn with<T>(&self, use_shared: impl FnOnce(&mut Shared) -> T) -> T {
        // A lane that panicked while it held the lock has left plain data behind.
        use_shared(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
