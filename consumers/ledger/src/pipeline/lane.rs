//! A lane: one owner of partitions, one connection to the log, one to the database.
//!
//! [`Lane::step`] is one turn: take what the log has, check what must be checked, apply a batch, say
//! how things are.
//!
//! | module | holds |
//! |---|---|
//! | [`check`] | what must fit before a partition is read |
//! | [`apply`] | the phases of a batch, and what is done when one fails |
//! | [`health`] | each second: how the partitions are |
//! | [`backoff`] | waits between tries |
//! | [`brake`] | what is not understood is not parked record by record |
//! | [`watch`] | partitions that do not get on |
//!
//! All I/O goes through [`Log`] and [`Store`], time through [`Clock`], randomness
//! through the seed: a simulation runs this very code.

mod apply;
mod backoff;
mod brake;
mod check;
mod health;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::board::Board;
use crate::kafka::assignment::{Assignment, Stop};
use crate::kafka::log::{Event, Log, Topic};
use crate::pipeline::lane::backoff::Backoff;
use crate::pipeline::lane::brake::Brake;
use crate::pipeline::lane::watch::Watch;
use crate::pipeline::memory::Memory;
use crate::pipeline::sentinel::Sentinel;
use crate::record::Intake;
use crate::store::{Served, Store};

/// How long a turn waits for the log when there is nothing else to do.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// Time as the lane sees it.
pub trait Clock {
    /// Microseconds since 1970-01-01 UTC.
    fn wall_micros(&self) -> i64;

    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// When a lane stops trusting a partition.
#[derive(Debug, Clone, Copy)]
pub struct Guards {
    /// A partition of which more than this share would have to be parked, in percent, stops instead; 100:
    /// never.
    pub park_brake_percent: u8,
    /// A partition that has records to apply and does not get on for this long is unhealthy, and begun anew.
    pub stall_after: Duration,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            park_brake_percent: 50,
            stall_after: Duration::from_secs(30),
        }
    }
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
    guards: Guards,
    brake: Brake,
    watch: Watch,
    sentinel: Sentinel,
    topic: Option<Topic>,
    database: Option<Uuid>,
    /// Which partitions the database serves, as it last said.
    served: Served,
    /// How many connections the store had opened when the active partitions were checked.
    connections: u64,
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
    /// What last kept each partition from being applied.
    troubles: BTreeMap<i32, String>,
    /// When parked records were last told of.
    parked_told_at: Option<Duration>,
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
            guards: Guards::default(),
            brake: Brake::default(),
            watch: Watch::default(),
            sentinel: Sentinel::default(),
            topic: None,
            database: None,
            served: Served::default(),
            connections: 0,
            backoff: Backoff::default(),
            last_tick: Duration::ZERO,
            topic_checked_at: Duration::ZERO,
            idle_since: None,
            problems: Vec::new(),
            broken: false,
            told: BTreeMap::new(),
            troubles: BTreeMap::new(),
            parked_told_at: None,
        }
    }

    /// The same with other guards.
    #[must_use]
    pub fn with_guards(self, guards: Guards) -> Self {
        Self { guards, ..self }
    }

    /// Works until `stop` says so, between two batches; ends by itself only when the log is broken.
    pub async fn run(&mut self, stop: impl Fn() -> bool) {
        while !stop() && !self.broken {
            self.step().await;
        }
        self.hint();
        self.board
            .remove(self.assignment.partitions().map(|(partition, _)| partition));
    }

    /// One turn.
    pub async fn step(&mut self) {
        let event = self.log.poll(self.poll_wait(), &mut self.intake).await;
        self.note_idleness(event.as_ref());
        // There may be more of them, about the same partitions: first things first.
        let may_check = event.is_none();
        if let Some(event) = event {
            self.on_event(event);
        }
        self.take_in().await;
        if self.assignment.ranges().next().is_some() {
            self.apply().await;
        }
        self.intake.clear();
        if may_check {
            // Not before: what was read before a check tells nothing of the log that is found by it.
            self.check_assignment().await;
        }
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
        POLL_WAIT.min(self.backoff.left(self.clock.monotonic()))
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
                self.watch
                    .retain(|partition| !partitions.contains(&partition));
                self.told
                    .retain(|partition, _| !partitions.contains(partition));
                self.troubles
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

    /// Keeps the records that continue their partitions; settles doubts about what is missing.
    async fn take_in(&mut self) {
        let Self {
            intake, assignment, ..
        } = self;
        intake.retain(|record, key, value| assignment.take(record, key, value));
        for (partition, end) in self.intake.take_ends() {
            self.assignment.end(partition, end);
        }
        for (partition, stop) in self.assignment.take_stops() {
            self.stop(partition, stop);
        }
        for partition in self.assignment.doubts() {
            match self.log.bounds(partition).await {
                Ok(bounds) => match self.assignment.seek_from(partition, bounds) {
                    Ok(Some(offset)) => self.seek(partition, offset).await,
                    Ok(None) => {}
                    Err(stop) => self.stop(partition, stop),
                },
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
}
