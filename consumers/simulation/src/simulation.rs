//! One run: the scheduler, which lets one actor at a time go one step, and the faults between the steps.

mod happenings;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use millrace_ledger::board::Board;
use millrace_ledger::pipeline::lane::Lane;
use millrace_ledger::store::{Error, Store as _};
use rand::RngExt as _;

use crate::backend::Backend;
use crate::fault::Fault;
use crate::gate::{Gated, Orphans};
use crate::log::SimulatedLog;
use crate::trace::Who;
use crate::world::{Counts, Handle, SECOND, State, VirtualClock, What, World};
use crate::{operator, parking};

/// Heartbeats that are missing for so long cost a member its partitions.
const SESSION_TIMEOUT: u64 = 6 * SECOND;

/// Once the faults have stopped, everything must be applied within this time: the longest stall, a frozen
/// owner and a stop that an operator accepts after another.
const DRAIN_MAX: u64 = 180 * SECOND;

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many steps before the faults stop.
    pub steps: u64,
    /// How many of the last steps a failure shows.
    pub shown: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 3_000,
            shown: 120,
        }
    }
}

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What it went through.
    pub counts: Counts,
    /// The same for the same seed and the same code.
    pub trace_hash: u64,
    /// What broke the promise, if anything did.
    pub failure: Option<Failure>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong.
    pub why: String,
    /// The last steps.
    pub last: Vec<String>,
}

impl Report {
    pub(crate) fn panicked(seed: u64) -> Self {
        Self {
            seed,
            counts: Counts::default(),
            trace_hash: 0,
            failure: Some(Failure {
                why: "panicked; the message is in the error output".into(),
                last: Vec::new(),
            }),
        }
    }
}

type Process = Pin<Box<dyn Future<Output = ()>>>;

struct Simulation<B: Backend> {
    world: Handle,
    backend: Rc<B>,
    orphans: Orphans<B::Store>,
    processes: Vec<Option<Process>>,
    /// The first actors are lanes, the others operators.
    lanes: usize,
}

/// Runs one seed.
pub async fn run<B: Backend + 'static>(seed: u64, options: Options, backend: B) -> Report
where
    B::Store: 'static,
{
    let world = World::new(seed, options.shown, backend.can_go_back());
    let lanes = world.state().random.random_range(1..5);
    let mut simulation = Simulation {
        world: Handle::clone(&world),
        backend: Rc::new(backend),
        orphans: Rc::new(RefCell::new(BTreeMap::new())),
        processes: Vec::new(),
        lanes,
    };
    simulation.begin();
    if let Err(error) = simulation.work(options).await {
        world.fail(format!("the database behind the simulation: {error}"));
    }
    // Nothing of the lanes may outlive the world's last word.
    drop(simulation);
    let mut state = world.state();
    let mut counts = state.counts;
    counts.micros = state.now;
    counts.applied = state.oracle.applied;
    counts.resolved = state.oracle.resolved;
    counts.rebalances = state.broker.rebalances;
    Report {
        seed,
        counts,
        trace_hash: state.trace.hash(),
        failure: state.failure.take().map(|why| Failure {
            why,
            last: state.trace.last(),
        }),
    }
}

impl<B: Backend + 'static> Simulation<B> {
    fn begin(&mut self) {
        let actors = self.lanes + 3;
        let mut state = self.world.state();
        state.lanes = self.lanes;
        for actor in 0..actors {
            state.actors.push(crate::world::Actor::default());
            self.processes.push(None);
            let after = state.random.random_range(0..2 * SECOND);
            state.schedule(after, What::Start { actor });
        }
        state.schedule(0, What::Append);
        if state.profile.has(Fault::Failover) {
            state.schedule(SECOND, What::Snapshot);
        }
    }

    async fn work(&mut self, options: Options) -> Result<(), Error> {
        loop {
            let due = {
                let mut state = self.world.state();
                if state.failure.is_some() {
                    return Ok(());
                }
                if state.chaos && state.counts.steps >= options.steps {
                    state.calm();
                }
                if !state.chaos && state.is_drained() {
                    break;
                }
                if state.calm_at.is_some_and(|at| state.now > at + DRAIN_MAX) {
                    state.fail_to_drain();
                    return Ok(());
                }
                let Some(Reverse(due)) = state.queue.pop() else {
                    state.fail("nothing is left to happen".into());
                    return Ok(());
                };
                state.now = due.at;
                due.what
            };
            self.happen(due).await?;
        }
        self.world.state().note(Who::World, "drained", &[]);
        let oracle = self.world.state().oracle.clone();
        if let Err(why) = self.backend.compare(&oracle).await {
            self.world.fail(why);
        }
        Ok(())
    }

    async fn happen(&mut self, what: What) -> Result<(), Error> {
        match what {
            What::Wake { actor, ticket } => {
                if self.world.state().grant(actor, ticket) {
                    self.step(actor).await;
                    self.strike().await?;
                }
            }
            What::Start { actor } => {
                if self.processes[actor].is_none() {
                    self.start(actor).await;
                }
            }
            What::Append => self.world.state().append(),
            What::Expire { member } => self.world.state().expire(member),
            What::SessionEnds { session } => {
                self.orphans.borrow_mut().remove(&session);
                self.backend.end(session).await?;
                self.world.state().sessions.end(session);
            }
            What::CommitLate { session } => self.commit_late(session).await?,
            What::Snapshot => {
                let mut state = self.world.state();
                if state.oracle.has_begun() {
                    self.backend.keep();
                    state.oracle.keep();
                }
                let after = state.random.random_range(SECOND / 2..8 * SECOND);
                state.schedule(after, What::Snapshot);
            }
        }
        Ok(())
    }

    async fn start(&mut self, actor: usize) {
        self.world.state().actors[actor] = crate::world::Actor::default();
        let world = Handle::clone(&self.world);
        let backend = Rc::clone(&self.backend);
        self.processes[actor] = Some(if actor < self.lanes {
            Box::pin(process(world, actor, backend, Rc::clone(&self.orphans)))
        } else if actor == self.lanes {
            Box::pin(operator::set_policies(world, actor, backend))
        } else if actor == self.lanes + 1 {
            Box::pin(operator::accept_stops(world, actor, backend))
        } else {
            Box::pin(parking::resolve(
                world,
                actor,
                backend,
                Rc::clone(&self.orphans),
            ))
        });
        self.world.note(actor, "started", &[]);
        self.step(actor).await;
    }

    /// Lets an actor go on until it waits for its next turn. What it asks of a real database meanwhile is
    /// waited for: nobody else goes on.
    async fn step(&mut self, actor: usize) {
        let Some(process) = &mut self.processes[actor] else {
            return;
        };
        let world = &self.world;
        let has_ended = poll_fn(|cx| match process.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if world.state().actors[actor].waiting.is_some() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await;
        if has_ended {
            self.processes[actor] = None;
            self.world.state().left(actor, self.lanes);
        }
    }

    /// A fault between two steps.
    async fn strike(&mut self) -> Result<(), Error> {
        let fault = {
            let mut state = self.world.state();
            if !state.chaos {
                return Ok(());
            }
            let State {
                profile, random, ..
            } = &mut *state;
            profile.after_step(random)
        };
        let Some(fault) = fault else {
            return Ok(());
        };
        let has_struck = match fault {
            Fault::Crash => self.crash(false),
            Fault::MachineLost => self.crash(true),
            Fault::DatabaseAway => {
                self.world.state().go_away();
                self.end_sessions().await?;
                true
            }
            Fault::Failover => self.fail_over().await?,
            fault => self.world.state().strike_world(fault, self.lanes),
        };
        if has_struck {
            let mut state = self.world.state();
            state.counts.faults.add(fault);
            state.note(Who::World, fault.name(), &[]);
        }
        Ok(())
    }

    /// A process is gone between two effects.
    fn crash(&mut self, lingers: bool) -> bool {
        let mut state = self.world.state();
        let actor = state.random.random_range(0..self.lanes);
        if self.processes[actor].is_none() {
            return false;
        }
        state.counts.crashes += 1;
        state.actors[actor].lingers = lingers;
        let member = state.actors[actor].member.take();
        if let Some(member) = member {
            state.schedule(SESSION_TIMEOUT, What::Expire { member });
        }
        let after = state.random.random_range(0..9 * SECOND);
        state.schedule(after, What::Start { actor });
        state.actors[actor].waiting = None;
        state.note(Who::Actor(actor), "is gone", &[]);
        drop(state);
        self.processes[actor] = None;
        true
    }

    async fn end_sessions(&mut self) -> Result<(), Error> {
        let open = self.world.state().sessions.end_all();
        for session in open {
            self.orphans.borrow_mut().remove(&session);
            self.backend.end(session).await?;
        }
        Ok(())
    }

    async fn fail_over(&mut self) -> Result<bool, Error> {
        if !self.world.state().oracle.go_back() {
            return Ok(false);
        }
        self.end_sessions().await?;
        self.backend.go_back();
        self.world.state().is_excused = true;
        Ok(true)
    }

    async fn commit_late(&mut self, session: u64) -> Result<(), Error> {
        let store = self.orphans.borrow_mut().remove(&session);
        let is_open = self.world.state().sessions.get(session).is_some();
        if let Some(mut store) = store
            && is_open
        {
            store.commit().await?;
            self.world.state().committed(session);
        }
        self.backend.end(session).await?;
        self.world.state().sessions.end(session);
        Ok(())
    }
}

async fn process<B: Backend>(
    world: Handle,
    actor: usize,
    backend: Rc<B>,
    orphans: Orphans<B::Store>,
) {
    let log = SimulatedLog::join(&world, actor);
    let store = Gated::new(&world, actor, &backend, &orphans);
    let clock = VirtualClock(Handle::clone(&world));
    let seed = world.state().random.random();
    let mut lane = Lane::new(log, store, clock, Board::default(), seed);
    lane.run(|| world.state().actors[actor].stop).await;
}
