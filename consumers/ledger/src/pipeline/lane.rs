//! A lane: one owner of partitions, one connection to the log, one to the database.
//!
//! [`Lane::step`] is one turn: take what the log has, check what must be checked, apply a batch, say
//! how things are. All I/O goes through [`Log`] and [`Store`], time through [`Clock`], randomness
//! through the seed: a simulation runs this very code.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_rules::ParkReason;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tracing::{debug, error, info, warn};

use crate::board::Board;
use crate::kafka::assignment::{Assignment, Stop};
use crate::kafka::log::{self, Event, Log, Topic};
use crate::observe;
use crate::pipeline::decide::decide;
use crate::pipeline::decode::{Culprits, candidates, decode};
use crate::pipeline::memory::Memory;
use crate::pipeline::plan::{Decided, Outcome, plan};
use crate::record::{Batch, Intake};
use crate::store::{self, Advance, LockWait, Position, Store};

/// How long a turn waits for the log when there is nothing else to do.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// How often a lane says how its partitions are, hints to the broker and looks for empty tails.
const TICK: Duration = Duration::from_secs(1);

/// How many ticks without a record make a partition's tail worth proving: at once where the lane has
/// nothing to do; where it has, records may be waiting behind those of other partitions.
const PATIENCE_IDLE: u32 = 1;
const PATIENCE_BUSY: u32 = 15;

/// How often the topic's partition count is read again: with another one keys change their places.
const TOPIC_INTERVAL: Duration = Duration::from_secs(10);

/// The first wait after a failure; it doubles each time.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait between two tries: a database that is back is used within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// After so long without a failure the next one is a first one again.
const BACKOFF_FORGOTTEN: Duration = Duration::from_secs(5);

/// How often a batch is decided afresh because another transaction was in the way, before the lane
/// goes back to polling. Such conflicts pass when the other one commits.
const RETRIES_MAX: u32 = 10;

/// A topic of garbage parks in every batch: it is told of this often.
const PARKED_TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Time as the lane sees it.
pub trait Clock {
    /// Microseconds since 1970-01-01 UTC.
    fn wall_micros(&self) -> i64;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// One worker.
pub struct Lane<L, S, C> {
    log: L,
    store: S,
    clock: C,
    board: Board,
    random: SmallRng,
    assignment: Assignment,
    intake: Intake,
    memory: Memory,
    topic: Option<Topic>,
    backoff: Backoff,
    last_tick: Duration,
    topic_checked_at: Duration,
    /// When the log last had nothing at all to hand out.
    idle_since: Option<Duration>,
    /// What keeps this lane from its work.
    problems: Vec<String>,
    /// Whether the log hands out nothing more.
    broken: bool,
    /// Stops that are in the log already.
    told: BTreeMap<i32, Stop>,
    /// When parked records were last told of.
    parked_told_at: Option<Duration>,
}

/// What came of checking partitions.
#[derive(Debug, Default)]
struct Checked {
    /// Those that fit, and where to read from.
    starts: Vec<(i32, i64)>,
    /// Those of which the broker does not tell.
    failed: Vec<(i32, log::Error)>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    retry_at: Duration,
}

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
enum Failure {
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
            | Self::Store(store::Error::Contradiction(_) | store::Error::Locked(_)) => false,
            Self::Repartitioned | Self::Store(_) | Self::Log(_) => true,
        }
    }
}

impl<L: Log, S: Store, C: Clock> Lane<L, S, C> {
    /// A lane without partitions; the seed spreads the waits of many lanes.
    pub fn new(log: L, store: S, clock: C, board: Board, seed: u64) -> Self {
        Self {
            log,
            store,
            clock,
            board,
            random: SmallRng::seed_from_u64(seed),
            assignment: Assignment::default(),
            intake: Intake::default(),
            memory: Memory::default(),
            topic: None,
            backoff: Backoff::default(),
            last_tick: Duration::ZERO,
            topic_checked_at: Duration::ZERO,
            idle_since: None,
            problems: Vec::new(),
            broken: false,
            told: BTreeMap::new(),
            parked_told_at: None,
        }
    }

    /// Works until `stop` says so, between two batches; ends by itself only when the log is broken.
    pub async fn run(&mut self, stop: impl Fn() -> bool) {
        while !stop() && !self.broken {
            self.step().await;
        }
        let positions: Vec<_> = self.assignment.positions().collect();
        self.log.hint(&positions);
        self.board
            .remove(self.assignment.partitions().map(|(partition, _)| partition));
    }

    /// One turn.
    pub async fn step(&mut self) {
        let event = self.log.poll(self.poll_wait(), &mut self.intake).await;
        self.note_idleness(event.as_ref());
        match event {
            // There may be more of them, about the same partitions: first things first.
            Some(event) => self.on_event(event),
            None => self.check_assignment().await,
        }
        self.take_in().await;
        if self.assignment.ranges().next().is_some() {
            self.apply().await;
        }
        self.intake.clear();
        self.tick().await;
    }

    /// The partitions and their state.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    fn poll_wait(&self) -> Duration {
        if self.assignment.unchecked().is_empty() {
            return POLL_WAIT;
        }
        POLL_WAIT.min(self.backoff.retry_at.saturating_sub(self.clock.monotonic()))
    }

    fn note_idleness(&mut self, event: Option<&Event>) {
        if self.intake.is_empty() && event.is_none() {
            self.idle_since.get_or_insert(self.clock.monotonic());
        } else {
            self.idle_since = None;
        }
    }

    fn on_event(&mut self, event: Event) {
        self.memory.clear();
        if matches!(event, Event::Assigned(_) | Event::Revoked(_)) {
            // A rebalance pauses what is read, inside librdkafka, and may miss to resume what was begun
            // at the same moment. Beginning anew ends that for certain.
            self.assignment.recheck_active();
        }
        match event {
            // The group has changed, and nothing of it concerns this lane.
            Event::Assigned(partitions) if partitions.is_empty() => {}
            Event::Assigned(partitions) => {
                info!(?partitions, "partitions assigned");
                self.assignment.assign(&partitions);
                self.backoff = Backoff::default();
            }
            Event::Revoked(partitions) => {
                info!(?partitions, "partitions revoked");
                self.assignment.revoke(&partitions);
                self.told
                    .retain(|partition, _| !partitions.contains(partition));
                self.board.remove(partitions.into_iter());
            }
            Event::OutOfRange(partition) => {
                warn!(
                    partition,
                    "the log has no record at the position: checking it again"
                );
                self.assignment.recheck(partition);
            }
            Event::Broken(why) => {
                error!(why, "the lane ends");
                self.broken = true;
            }
        }
    }

    /// Compares the unchecked partitions with the log and starts reading those that fit.
    async fn check_assignment(&mut self) {
        let unchecked = self.assignment.unchecked();
        if unchecked.is_empty() || self.clock.monotonic() < self.backoff.retry_at {
            return;
        }
        match self.check(&unchecked).await {
            Ok(Checked { starts, failed }) => {
                if let Err(failure) = self.log.start(&starts).await {
                    self.fail(starts.iter().map(|(partition, _)| *partition), &failure);
                }
                for (partition, failure) in failed {
                    self.fail([partition].into_iter(), &failure);
                }
            }
            Err(failure) => self.fail(unchecked.into_iter(), &failure),
        }
        self.report_health().await;
    }

    async fn check(&mut self, unchecked: &[i32]) -> Result<Checked, Failure> {
        let topic = self.log.topic().await?;
        let mut checked = Checked::default();
        let mut bounds = BTreeMap::new();
        for partition in unchecked {
            // One without a leader does not keep the others waiting.
            match self.log.bounds(*partition).await {
                Ok(found) => drop(bounds.insert(*partition, found)),
                Err(failure) => checked.failed.push((*partition, failure)),
            }
        }
        let log_starts: Vec<_> = bounds.iter().map(|(p, b)| (*p, b.start)).collect();
        let attached = self.store.attach(&topic, &log_starts).await?;
        let misfit = misfit(&attached.topic, &topic);
        self.topic = Some(attached.topic);
        if let Some(stop) = misfit {
            for partition in unchecked {
                self.stop(*partition, stop.clone());
            }
            return Ok(Checked::default());
        }
        for position in &attached.positions {
            let partition = position.partition;
            let Some(bounds) = bounds.get(&partition) else {
                continue;
            };
            self.board.taken_over(partition, position.anchor_timestamp);
            match self.assignment.check(position, *bounds) {
                Ok(offset) => checked.starts.push((partition, offset)),
                Err(stop) => self.stop(partition, stop),
            }
        }
        Ok(checked)
    }

    fn stop(&mut self, partition: i32, stop: Stop) {
        if self.told.get(&partition) != Some(&stop) {
            error!(partition, reason = %stop, "the partition is stopped until an operator acts");
            self.told.insert(partition, stop.clone());
        }
        self.log.hold(&[partition]);
        self.assignment.stop(partition, stop);
    }

    /// Something failed: the partitions are checked again after a wait.
    fn fail(&mut self, partitions: impl Iterator<Item = i32>, failure: &dyn std::error::Error) {
        let wait = self.next_wait();
        let partitions: Vec<_> = partitions.collect();
        let wait_ms = wait.as_millis();
        warn!(error = %failure, ?partitions, wait_ms, "cannot go on: trying again");
        self.backoff.retry_at = self.clock.monotonic() + wait;
        self.memory.clear();
        for partition in &partitions {
            self.assignment.recheck(*partition);
        }
        self.log.hold(&partitions);
    }

    /// Capped exponential backoff with full jitter over its upper half.
    fn next_wait(&mut self) -> Duration {
        let doubled = BACKOFF_MIN * 2u32.saturating_pow(self.backoff.failures.min(10));
        self.backoff.failures += 1;
        let wait = doubled.min(BACKOFF_MAX);
        wait.mul_f64(self.random.random_range(0.5..=1.0))
    }

    /// Keeps the records that continue their partitions; settles doubts about holes.
    async fn take_in(&mut self) {
        let Self {
            intake, assignment, ..
        } = self;
        intake.retain(|record| assignment.take(record));
        for partition in self.intake.take_ends() {
            self.assignment.end(partition);
        }
        for (partition, next) in self.assignment.doubts() {
            match self.log.bounds(partition).await {
                Ok(bounds) if bounds.start > next => {
                    let (start, position) = (bounds.start, next);
                    self.stop(
                        partition,
                        Stop::LogStartBeyond {
                            partition,
                            start,
                            position,
                        },
                    );
                }
                Ok(_) => self.seek(partition, next).await,
                Err(failure) => self.fail([partition].into_iter(), &failure),
            }
        }
    }

    async fn seek(&mut self, partition: i32, next: i64) {
        match self.log.start(&[(partition, next)]).await {
            Ok(()) => self.assignment.sought(partition),
            Err(failure) => self.fail([partition].into_iter(), &failure),
        }
    }

    /// Applies everything that is taken in. What cannot be applied is read again from the log.
    async fn apply(&mut self) {
        let mut intake = std::mem::take(&mut self.intake);
        let mut culprits = Culprits::new();
        let mut lock_wait = LockWait::Normal;
        let mut waiting = vec![intake.batch(self.assignment.ranges())];
        while let Some(batch) = waiting.pop() {
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
                Err(Failure::Store(
                    store::Error::Contradiction(detail) | store::Error::Locked(detail),
                )) if batch.slices().len() > 1 => {
                    debug!(error = detail, "one partition at a time");
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
                    self.drop_batches(partitions, failure);
                }
            }
        }
        self.intake = intake;
    }

    /// Nothing of these partitions was applied, or nobody knows: they are checked again.
    fn drop_batches(&mut self, partitions: Vec<i32>, failure: Failure) {
        match failure {
            Failure::Fenced { .. } => {
                observe::fenced();
                self.fail(partitions.into_iter(), &failure);
            }
            Failure::Store(store::Error::Contradiction(detail)) => {
                for partition in partitions {
                    self.stop(partition, Stop::Contradiction(detail.clone()));
                }
            }
            failure => self.fail(partitions.into_iter(), &failure),
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
        stage.end("decode", self.clock.monotonic());

        let positions = self.store.lock(&batch.partitions(), lock_wait).await?;
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

        self.store.commit().await?;
        stage.end("commit", self.clock.monotonic());

        let heads = outcome
            .advances
            .iter()
            .map(|a| (a.numbers.partition, a.chain_head));
        self.memory.committed(&decisions, heads, partitions);
        observe::batch(&outcome, batch);
        tell_parked(&mut self.parked_told_at, &outcome, self.clock.monotonic());
        self.board.applied(batch);
        Ok(outcome.advances)
    }

    fn committed(&mut self, advances: &[Advance]) {
        for Advance { numbers, .. } in advances {
            self.assignment
                .committed(numbers.partition, numbers.next_offset);
        }
    }

    /// Each second: status for people, a hint for the broker, proofs of empty tails.
    async fn tick(&mut self) {
        let now = self.clock.monotonic();
        if now < self.last_tick + TICK {
            return;
        }
        self.last_tick = now;
        if now > self.backoff.retry_at + BACKOFF_FORGOTTEN {
            self.backoff.failures = 0;
        }
        self.report_health().await;
        let positions: Vec<_> = self.assignment.positions().collect();
        self.log.hint(&positions);
        let idle = self.idle_since.is_some_and(|since| now >= since + TICK);
        self.prove_tails(if idle { PATIENCE_IDLE } else { PATIENCE_BUSY })
            .await;
        if now >= self.topic_checked_at + TOPIC_INTERVAL {
            self.topic_checked_at = now;
            self.check_topic().await;
        }
    }

    /// Stops everything when the topic is no longer what the database applies.
    async fn check_topic(&mut self) {
        let Some(known) = self.topic.clone() else {
            return;
        };
        // A broker that is away is told of elsewhere.
        let Ok(found) = self.log.topic().await else {
            return;
        };
        if let Some(stop) = misfit(&known, &found) {
            let active: Vec<_> = self.assignment.positions().map(|(p, _)| p).collect();
            for partition in active {
                self.stop(partition, stop.clone());
            }
        }
        self.assignment.recheck_partition_counts();
    }

    async fn prove_tails(&mut self, patience: u32) {
        let ends: Vec<_> = self
            .assignment
            .positions()
            .filter_map(|(partition, _)| Some((partition, self.log.last_bounds(partition)?.end)))
            .collect();
        for (partition, end) in ends {
            if let Some(next) = self.assignment.prove_tail(partition, end, patience) {
                debug!(
                    partition,
                    next, end, "nothing comes before the end: seeking to prove it"
                );
                self.seek(partition, next).await;
            }
        }
    }

    /// The board (readiness, metrics) and the table that analysts see.
    async fn report_health(&mut self) {
        let now = self.clock.wall_micros();
        let statuses: Vec<_> = self
            .assignment
            .partitions()
            .map(|(partition, state)| {
                let bounds = self.log.last_bounds(partition);
                self.board.status(partition, state, bounds, now)
            })
            .collect();
        for status in &statuses {
            observe::partition(status);
        }
        let written = self.store.publish_status(&statuses).await;
        let problems = [
            self.log.problem().map(|problem| problem.to_string()),
            written
                .err()
                .map(|problem| format!("the database: {problem}")),
        ];
        self.note_problems(problems.into_iter().flatten().collect());
        self.board.publish(statuses, &self.problems);
    }

    /// Says once what has begun to keep this lane from its work, and once that it is over.
    fn note_problems(&mut self, problems: Vec<String>) {
        for problem in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            warn!(problem, "waiting");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!("going on: Kafka and the database are there");
        }
        self.problems = problems;
    }
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

/// Why the database cannot apply this topic, if it cannot.
fn misfit(known: &Topic, found: &Topic) -> Option<Stop> {
    if known.name != found.name {
        let (known, found) = (known.name.clone(), found.name.clone());
        return Some(Stop::OtherTopic { known, found });
    }
    (known.partitions != found.partitions).then_some(Stop::PartitionCount {
        known: known.partitions,
        found: found.partitions,
    })
}

/// What was found under the locks must be where the batch begins, or it is a zombie's.
fn check_positions(batch: &Batch<'_>, positions: &[Position]) -> Result<(), Failure> {
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
