//! What all parts of a simulation share: time, turns, randomness, and the simulated things themselves.
//!
//! Nothing here awaits while it borrows the state, and one thing runs at a time: the borrow never fails.

use std::cell::{RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use millrace_ledger::kafka::log::Hint;
use millrace_ledger::pipeline::lane::Clock;
use millrace_ledger::store::PartitionStatus;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::broker::Broker;
use crate::fault::{Fault, FaultCounts, Profile};
use crate::oracle::Oracle;
use crate::sessions::Sessions;
use crate::trace::{NONE, Trace, Who};
use crate::workload::Workload;

/// When every simulation begins: 2024-01-01T00:00:00Z, microseconds since 1970.
const EPOCH_MICROS: i64 = 1_704_067_200_000_000;

/// Microseconds of virtual time.
pub type Micros = u64;

/// A second.
pub const SECOND: Micros = 1_000_000;

/// A millisecond.
pub const MILLI: Micros = 1_000;

/// The world of one run.
pub struct World {
    state: RefCell<State>,
}

/// A handle on the world.
pub type Handle = Rc<World>;

/// Something that is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub at: Micros,
    /// Among those due at once, the one that was asked for first.
    order: u64,
    pub what: What,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// An actor's turn.
    Wake { actor: usize, ticket: u64 },
    /// A process begins (again).
    Start { actor: usize },
    /// Records come into the log.
    Append,
    /// The group misses a member's heartbeats.
    Expire { member: u64 },
    /// The server notices that a connection is dead.
    SessionEnds { session: u64 },
    /// A commit whose client has given up is done.
    CommitLate { session: u64 },
    /// A state of the database to go back to is kept.
    Snapshot,
}

/// An actor as the scheduler sees it.
#[derive(Debug, Default)]
pub(crate) struct Actor {
    /// The turn that it waits for.
    pub waiting: Option<u64>,
    /// It stands still until then.
    pub frozen_until: Micros,
    /// Whether it was asked to end.
    pub stop: bool,
    /// Whether its connection stays open when it ends.
    pub lingers: bool,
    /// Its member of the group.
    pub member: Option<u64>,
    /// The version of each partition's log that its last records came from.
    pub versions: BTreeMap<i32, usize>,
    /// What the broker told it of each partition.
    pub hinted: BTreeMap<i32, Hint>,
}

/// What was done in a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Turns.
    pub steps: u64,
    /// Virtual time in microseconds.
    pub micros: u64,
    /// Records in the log.
    pub records: u64,
    /// Records with a verdict; one that was accepted to be read again counts again.
    pub applied: u64,
    /// Batches committed.
    pub batches: u64,
    /// Processes that ended without a word.
    pub crashes: u64,
    /// Rebalances, for whatever reason.
    pub rebalances: u64,
    /// Batches begun by a lane whose partition was another's already.
    pub zombie_writes: u64,
    /// Partitions whose batch was committed by a lane that had just lost them, because it came first.
    pub zombie_commits: u64,
    /// Connections of frozen owners that were ended.
    pub frozen_ended: u64,
    /// Gaps that the operator accepted.
    pub accepted: u64,
    /// Policies that were changed.
    pub policies: u64,
    /// Parked records that were replayed or discarded.
    pub resolved: u64,
    /// Faults by kind.
    pub faults: FaultCounts,
}

impl Counts {
    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        self.steps += other.steps;
        self.micros += other.micros;
        self.records += other.records;
        self.applied += other.applied;
        self.batches += other.batches;
        self.crashes += other.crashes;
        self.rebalances += other.rebalances;
        self.zombie_writes += other.zombie_writes;
        self.zombie_commits += other.zombie_commits;
        self.frozen_ended += other.frozen_ended;
        self.accepted += other.accepted;
        self.policies += other.policies;
        self.resolved += other.resolved;
        self.faults.merge(&other.faults);
    }
}

pub(crate) struct State {
    pub now: Micros,
    pub wall_offset: i64,
    pub random: SmallRng,
    pub queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub actors: Vec<Actor>,
    /// The first actors are lanes, the others operators.
    pub lanes: usize,
    pub trace: Trace,
    pub counts: Counts,
    pub profile: Profile,
    /// Whether faults strike.
    pub chaos: bool,
    /// When they stopped.
    pub calm_at: Option<Micros>,
    pub database_away_until: Micros,
    pub broker: Broker,
    pub sessions: Sessions,
    pub workload: Workload,
    pub oracle: Oracle,
    pub failure: Option<String>,
    /// Partitions that wait for the operator, as their owners say.
    pub stopped: BTreeMap<i32, String>,
    /// Whether the database has gone back, or the partition count was wrong: both may stop any partition.
    pub is_excused: bool,
}

impl World {
    pub(crate) fn new(seed: u64, kept_max: usize, can_go_back: bool) -> Handle {
        let mut random = SmallRng::seed_from_u64(seed);
        let profile = Profile::draw(&mut random, can_go_back);
        let workload = Workload::draw(&mut random);
        let partitions = workload.partitions();
        Rc::new(Self {
            state: RefCell::new(State {
                now: SECOND,
                wall_offset: EPOCH_MICROS,
                random,
                queue: BinaryHeap::new(),
                order: 0,
                actors: Vec::new(),
                lanes: 0,
                trace: Trace::new(kept_max),
                counts: Counts::default(),
                profile,
                chaos: true,
                calm_at: None,
                database_away_until: 0,
                broker: Broker::new(partitions),
                sessions: Sessions::default(),
                workload,
                oracle: Oracle::new(partitions),
                failure: None,
                stopped: BTreeMap::new(),
                is_excused: false,
            }),
        })
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Lets the scheduler decide who goes on, after some time.
    pub(crate) async fn turn(&self, actor: usize, after: Micros) {
        let ticket = self.state().ask_turn(actor, after);
        Turn {
            world: self,
            actor,
            ticket,
        }
        .await;
    }

    /// A turn after as long as a call takes.
    pub(crate) async fn call(&self, actor: usize) {
        let after = {
            let mut state = self.state();
            if state.strikes(Fault::SlowCall) {
                state.random.random_range(100 * MILLI..4 * SECOND)
            } else {
                state.random.random_range(50..3 * MILLI)
            }
        };
        self.turn(actor, after).await;
    }

    /// Notes what an actor does.
    pub(crate) fn note(&self, actor: usize, what: &'static str, numbers: &[i64]) {
        self.state().note(Who::Actor(actor), what, numbers);
    }

    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        self.state().strikes(fault)
    }

    /// The promise is broken.
    pub(crate) fn fail(&self, why: String) {
        self.state().fail(why);
    }
}

impl State {
    pub fn note(&mut self, who: Who, what: &'static str, numbers: &[i64]) {
        let mut three = [NONE; 3];
        for (place, number) in three.iter_mut().zip(numbers) {
            *place = *number;
        }
        self.trace.add(self.now, who, what, three);
    }

    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.chaos && self.profile.strikes(fault, &mut self.random);
        if strikes {
            self.counts.faults.add(fault);
            self.note(Who::World, fault.name(), &[]);
        }
        strikes
    }

    pub fn is_database_away(&self) -> bool {
        self.now < self.database_away_until
    }

    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    pub fn schedule(&mut self, after: Micros, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Due {
            at: self.now + after,
            order: self.order,
            what,
        }));
    }

    /// An owner says how a partition is.
    pub fn said(&mut self, actor: usize, status: &PartitionStatus) {
        let partition = status.partition;
        let member = self.actors[actor].member;
        let is_owner = member.is_some_and(|member| self.broker.is_owner(member, partition));
        let is_stopped = status.state == "stopped";
        if is_stopped {
            let is_excused = self.is_excused || self.broker.partition(partition).is_excused;
            if !is_excused || status.detail.starts_with("the database contradicts") {
                self.fail(format!(
                    "partition {partition} stopped for no reason: {}",
                    status.detail
                ));
            }
        }
        if is_owner && is_stopped {
            self.stopped.insert(partition, status.detail.clone());
        } else if is_owner {
            self.stopped.remove(&partition);
        }
    }

    fn ask_turn(&mut self, actor: usize, after: Micros) -> u64 {
        let ticket = self.order + 1;
        self.actors[actor].waiting = Some(ticket);
        self.schedule(after, What::Wake { actor, ticket });
        ticket
    }
}

struct Turn<'w> {
    world: &'w World,
    actor: usize,
    ticket: u64,
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.world.state().actors[self.actor].waiting == Some(self.ticket) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// Virtual time as a lane sees it.
pub(crate) struct VirtualClock(pub Handle);

impl Clock for VirtualClock {
    fn wall_micros(&self) -> i64 {
        let state = self.0.state();
        state.wall_offset + i64::try_from(state.now).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.state().now)
    }
}
