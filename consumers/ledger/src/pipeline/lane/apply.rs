//! The phases of one batch, and what is done when one of them fails.

use std::time::Duration;

use millrace_rules::ParkReason;
use tracing::{debug, warn};

use super::brake::{self, Counts};
use super::{Clock, Lane};
use crate::kafka::assignment::Stop;
use crate::kafka::log::{self, Log};
use crate::observe;
use crate::pipeline::decide::decide;
use crate::pipeline::decode::{Culprits, candidates, decode};
use crate::pipeline::outcome::Outcome;
use crate::pipeline::plan::{Decided, plan};
use crate::planted::{self, Bug};
use crate::record::Batch;
use crate::store::{self, Advance, LockWait, Position, Store};

/// How often a batch is decided afresh because another transaction was in the way, before the lane
/// goes back to polling. Such conflicts pass when the other one commits.
const RETRIES_MAX: u32 = 10;

/// A topic of garbage parks in every batch: it is told of this often.
const PARKED_TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Another owner has moved the position: this lane knows too little.
    #[error(
        "partition {partition} stands at (incarnation, offset) {found:?} in the database, this lane is \
         at {expected:?}"
    )]
    Fenced {
        partition: i32,
        found: (i32, i64),
        expected: (i32, i64),
    },
    /// Too much of the partition cannot be understood.
    #[error("{0}")]
    Braked(Stop),
    /// The partition count changed while records were decoded.
    #[error("the topic has another partition count")]
    Repartitioned,
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Log(#[from] log::Error),
}

impl Failure {
    /// Whether other partitions would fail in the same way.
    fn concerns_all(&self) -> bool {
        match self {
            Self::Fenced { .. }
            | Self::Braked(_)
            | Self::Store(store::Error::Contradiction(_) | store::Error::Locked(_)) => false,
            Self::Repartitioned | Self::Store(_) | Self::Log(_) => true,
        }
    }
}

impl<L: Log, S: Store, C: Clock> Lane<L, S, C> {
    /// Applies everything that is taken in. What cannot be applied is read again from the log.
    pub(super) async fn apply(&mut self) {
        let mut intake = std::mem::take(&mut self.intake);
        let mut culprits = Culprits::new();
        let mut lock_wait = LockWait::Normal;
        let mut waiting = vec![intake.batch(self.assignment.ranges())];
        while let Some(batch) = waiting.pop() {
            if planted::has(Bug::OffsetFirst) {
                self.hint();
            }
            match self.apply_batch(&batch, &culprits, lock_wait).await {
                Ok(advances) => self.committed(&advances),
                // The culprit is in here: halve the batch until it is alone.
                Err(Failure::Store(store::Error::Row(detail))) if batch.len() > 1 => {
                    debug!(error = detail, records = batch.len(), "halving the batch");
                    let half = batch.len() / 2;
                    let (front, back) = batch.split(half);
                    waiting.push(back);
                    waiting.push(front);
                }
                // One partition is not to hold back the others.
                Err(
                    failure @ (Failure::Braked(_)
                    | Failure::Store(
                        store::Error::Contradiction(_) | store::Error::Locked(_),
                    )),
                ) if batch.slices().len() > 1 => {
                    debug!(error = %failure, "one partition at a time");
                    lock_wait = LockWait::Short;
                    waiting.extend(batch.by_partition().into_iter().rev());
                }
                Err(Failure::Store(store::Error::Row(detail))) => {
                    let found = batch.slices().iter().flat_map(|slice| batch.records(slice));
                    culprits.extend(found.map(|record| (record.partition, record.offset)));
                    warn!(
                        error = detail,
                        ?culprits,
                        "the database refuses this record: parking it"
                    );
                    waiting.push(batch);
                }
                Err(failure) => {
                    let mut partitions = batch.partitions();
                    if failure.concerns_all() {
                        partitions.extend(waiting.drain(..).flat_map(|other| other.partitions()));
                        partitions.sort_unstable();
                        partitions.dedup();
                    } else {
                        // What is left of these partitions does not begin at their positions any more.
                        let rest = waiting.into_iter().flat_map(Batch::by_partition);
                        waiting = rest.filter(|part| !part.shares_any(&partitions)).collect();
                    }
                    self.drop_batches(partitions, failure).await;
                }
            }
        }
        self.intake = intake;
    }

    /// Nothing of these partitions was applied, or nobody knows: they are checked again.
    async fn drop_batches(&mut self, partitions: Vec<i32>, failure: Failure) {
        match failure {
            Failure::Store(store::Error::Locked(_)) => {
                self.wait_for_owner(partitions, &failure).await;
            }
            Failure::Fenced { .. } => {
                observe::fenced();
                self.fail(partitions.into_iter(), &failure);
            }
            Failure::Braked(stop) => {
                for partition in partitions {
                    self.stop(partition, stop.clone());
                }
            }
            Failure::Store(store::Error::Contradiction(detail)) => {
                for partition in partitions {
                    self.stop(partition, Stop::Contradiction(detail.clone()));
                }
            }
            failure => self.fail(partitions.into_iter(), &failure),
        }
    }

    /// Another owner holds a lock, for long: it is about to end, unless it is frozen.
    async fn wait_for_owner(&mut self, partitions: Vec<i32>, failure: &Failure) {
        match self.store.end_frozen(&partitions).await {
            Ok(true) => {
                observe::ended_frozen();
                self.recheck(&partitions);
            }
            Ok(false) => self.fail(partitions.into_iter(), failure),
            Err(error) => self.fail(partitions.into_iter(), &error),
        }
    }

    /// One batch in one database transaction, tried again while others are in the way.
    async fn apply_batch(
        &mut self,
        batch: &Batch<'_>,
        culprits: &Culprits,
        lock_wait: LockWait,
    ) -> Result<Vec<Advance>, Failure> {
        let mut tries = 0;
        loop {
            let result = self.try_batch(batch, culprits, lock_wait).await;
            if result.is_err() {
                self.memory.clear();
                self.store.rollback().await;
            }
            match result {
                Err(Failure::Store(store::Error::Retry(detail))) if tries < RETRIES_MAX => {
                    tries += 1;
                    observe::retried();
                    debug!(error = detail, tries, "another transaction was in the way");
                }
                result => return result,
            }
        }
    }

    async fn try_batch(
        &mut self,
        batch: &Batch<'_>,
        culprits: &Culprits,
        lock_wait: LockWait,
    ) -> Result<Vec<Advance>, Failure> {
        let partitions = self.topic.as_ref().map_or(0, |topic| topic.partitions);
        let mut stage = observe::Stage::begin(self.clock.monotonic());

        let decoded = decode(batch, partitions, culprits);
        let candidates = candidates(batch, &decoded);
        let counts = brake::count(batch, &decoded);
        self.check_brake(&counts)?;
        stage.end("decode", self.clock.monotonic());

        let positions = if planted::has(Bug::NoLock) {
            self.unlocked(&batch.partitions()).await?
        } else {
            self.store.lock(&batch.partitions(), lock_wait).await?
        };
        check_positions(batch, &positions)?;
        stage.end("lock", self.clock.monotonic());

        let decisions = decide(
            &mut self.store,
            &mut self.memory,
            &candidates,
            &positions,
            partitions,
        )
        .await?;
        stage.end("decide", self.clock.monotonic());

        let judged = Decided {
            batch,
            decoded: &decoded,
            candidates: &candidates,
            decisions: &decisions,
        };
        let outcome = plan(judged, &positions, self.clock.wall_micros());
        if observe::any_misrouted(&outcome) && self.log.topic().await?.partitions != partitions {
            return Err(Failure::Repartitioned);
        }
        stage.end("plan", self.clock.monotonic());

        self.store.write(&outcome).await?;
        stage.end("write", self.clock.monotonic());

        let committed = self.store.commit().await;
        if !planted::has(Bug::ReuseVerdicts) {
            committed?;
        }
        stage.end("commit", self.clock.monotonic());

        let heads = outcome
            .advances
            .iter()
            .map(|a| (a.numbers.partition, a.chain_head));
        self.memory.committed(&decisions, heads, partitions);
        self.brake.applied(&counts);
        observe::batch(&outcome, batch);
        observe::order(self.sentinel.applied(batch));
        tell_parked(&mut self.parked_told_at, &outcome, self.clock.monotonic());
        self.board.applied(batch);
        Ok(outcome.advances)
    }

    async fn unlocked(&mut self, partitions: &[i32]) -> Result<Vec<Position>, Failure> {
        self.store.lock(&[], LockWait::Short).await?;
        let topic = self.topic.clone().expect("a batch comes after a check");
        let starts: Vec<_> = partitions.iter().map(|partition| (*partition, 0)).collect();
        Ok(self.store.attach(&topic, &starts).await?.positions)
    }

    fn check_brake(&self, counts: &[(i32, Counts)]) -> Result<(), Failure> {
        let percent = self.guards.park_brake_percent;
        match self.brake.trips(counts, percent) {
            None => Ok(()),
            Some((partition, Counts { records, parked })) => {
                Err(Failure::Braked(Stop::ParkBrake {
                    partition,
                    records,
                    parked,
                    percent,
                }))
            }
        }
    }

    fn committed(&mut self, advances: &[Advance]) {
        for Advance {
            numbers, anchor, ..
        } in advances
        {
            self.assignment
                .committed(numbers.partition, numbers.next_offset, *anchor);
            self.troubles.remove(&numbers.partition);
        }
    }
}

/// What was found under the locks must be where the batch begins, or it is a zombie's.
fn check_positions(batch: &Batch<'_>, positions: &[Position]) -> Result<(), Failure> {
    if planted::has(Bug::SkipPositionCheck) {
        return Ok(());
    }
    for (slice, position) in batch.slices().iter().zip(positions) {
        let partition = slice.log.partition;
        let expected = (slice.log.incarnation, slice.log.from);
        let found = (position.incarnation, position.position);
        if position.partition != partition || found != expected {
            return Err(Failure::Fenced {
                partition,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// Says that records were parked: the first of a batch, and not for each batch.
fn tell_parked(told_at: &mut Option<Duration>, outcome: &Outcome<'_>, now: Duration) {
    let Some(first) = outcome.parked.first() else {
        return;
    };
    if told_at.is_some_and(|at| now < at + PARKED_TELL_INTERVAL) {
        return;
    }
    *told_at = Some(now);
    let raw = &first.raw;
    let reason = ParkReason::from_code(raw.reason).map_or("", ParkReason::as_str);
    warn!(
        partition = raw.partition,
        offset = raw.log_offset,
        reason,
        records = outcome.parked.len(),
        "records are parked and hold back later ones of their keys: see reports.parked"
    );
}
