//! The operators: one sets policies beside the lanes, one accepts what has stopped a partition.

use std::rc::Rc;

use millrace_ledger::kafka::assignment::Stop;
use millrace_ledger::kafka::diagnosis::diagnose;
use millrace_ledger::kafka::log::Bounds;
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::store::positions::{Acceptance, Found};
use millrace_ledger::store::{Error, Position};
use millrace_rules::{Limit, Status};
use millrace_schemas::partition_of;
use rand::RngExt as _;

use crate::backend::{Backend, Policy, PolicyChange};
use crate::log::SimulatedLog;
use crate::trace::NONE;
use crate::world::{Handle, MILLI, SECOND, State, VirtualClock};

/// Sets policies until the faults end.
pub(crate) async fn set_policies<B: Backend>(world: Handle, actor: usize, backend: Rc<B>) {
    let often = world.state().random.random_range(1..8);
    loop {
        let (after, is_over) = {
            let mut state = world.state();
            let after = state.random.random_range(20 * MILLI..often * SECOND);
            (after, !state.chaos)
        };
        if is_over {
            return;
        }
        world.turn(actor, after).await;
        let change = world.state().draw_change();
        if let Err(error) = set_policy(&world, actor, &*backend, &change).await {
            world.fail(format!("an operator cannot set a policy: {error}"));
        }
    }
}

async fn set_policy<B: Backend>(
    world: &Handle,
    actor: usize,
    backend: &B,
    change: &PolicyChange,
) -> Result<(), Error> {
    let count = world.state().workload.partitions();
    let partitions: Vec<_> = match (&change.account, change.policy) {
        (Some(account), Policy::Limit(..)) => vec![partition_of(account.as_bytes(), count)],
        _ => (0..count).collect(),
    };
    let Some(session) = lock(world, actor, &partitions).await else {
        return Ok(());
    };
    backend.set_policy(change).await?;
    let mut state = world.state();
    state.oracle.set_policy(change);
    state.sessions.end(session);
    state.counts.policies += 1;
    drop(state);
    world.note(actor, "policy set", &[NONE]);
    Ok(())
}

/// Waits for the locks of these partitions; none when the database goes away meanwhile.
async fn lock(world: &Handle, actor: usize, partitions: &[i32]) -> Option<u64> {
    let session = {
        let mut state = world.state();
        let now = state.now;
        if state.is_database_away() {
            return None;
        }
        state.sessions.open(actor, now)
    };
    for partition in partitions {
        loop {
            let after = {
                let mut state = world.state();
                state.sessions.get(session)?;
                if state.sessions.lock(session, *partition) {
                    break;
                }
                state.random.random_range(MILLI..50 * MILLI)
            };
            world.turn(actor, after).await;
        }
    }
    Some(session)
}

impl State {
    fn draw_change(&mut self) -> PolicyChange {
        let random = &mut self.random;
        let accounts = self.workload.accounts();
        let account = Rc::clone(&accounts[random.random_range(0..accounts.len())]);
        let is_external = account.starts_with("external:");
        if random.random_bool(0.3) || (is_external && random.random_bool(0.5)) {
            let status = match random.random_range(0..5) {
                0 => Status::Closed,
                1 => Status::Frozen,
                _ => Status::Open,
            };
            return PolicyChange {
                account: Some(account),
                policy: Policy::Status(status),
            };
        }
        let currencies = self.workload.currencies();
        let one = currencies[random.random_range(0..currencies.len())];
        let currency = random.random_bool(0.6).then_some(one);
        let limit = if random.random_bool(0.2) {
            Limit::Unlimited
        } else {
            Limit::Overdraft(random.random_range(0..150))
        };
        PolicyChange {
            account: (!is_external && random.random_bool(0.8)).then_some(account),
            policy: Policy::Limit(currency, limit),
        }
    }
}

/// Looks at stopped partitions now and then, and accepts what has stopped them.
pub(crate) async fn accept_stops<B: Backend>(world: Handle, actor: usize, backend: Rc<B>) {
    loop {
        let after = world.state().random.random_range(SECOND..8 * SECOND);
        world.turn(actor, after).await;
        let stopped = world.state().stopped.clone();
        for (partition, detail) in stopped {
            if let Err(why) = accept(&world, actor, &*backend, partition, &detail).await {
                // Somebody was faster, or something is away: the next look tells.
                world.note(actor, "not accepted", &[partition.into()]);
                drop(why);
            }
        }
    }
}

async fn accept<B: Backend>(
    world: &Handle,
    actor: usize,
    backend: &B,
    partition: i32,
    detail: &str,
) -> Result<(), Error> {
    let unavailable = |what: &str| Error::Unavailable(what.to_owned());
    if world.state().is_database_away() {
        return Err(unavailable("the database is away"));
    }
    let found: Found = backend
        .position(partition)
        .await?
        .ok_or_else(|| unavailable("no position"))?;
    let mut log = SimulatedLog::outside(world, actor);
    let (stop, bounds) = diagnose(&mut log, &found)
        .await
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    let start_offset = match stop {
        Some(stop) => start_offset(&stop, &found.position, bounds),
        // The lane knows of commits that it has never told the broker of.
        None if detail.starts_with("the database has") => Some(found.position.position),
        None => None,
    };
    let Some(start_offset) = start_offset else {
        return Ok(());
    };
    let session = lock(world, actor, &[partition])
        .await
        .ok_or_else(|| unavailable("the database went away"))?;
    let acceptance = Acceptance {
        seen: found.position,
        start_offset,
        reason: "simulated",
        operator: "simulation",
        now: VirtualClock(Handle::clone(world)).wall_micros(),
    };
    let accepted = backend.accept(session, acceptance).await;
    let mut state = world.state();
    state.sessions.end(session);
    accepted?;
    state.oracle.accepted(&acceptance);
    state.stopped.remove(&partition);
    state.counts.accepted += 1;
    drop(state);
    world.note(actor, "accepted", &[partition.into(), start_offset]);
    Ok(())
}

/// Where an operator lets the partition go on: as `millrace positions accept` proposes.
fn start_offset(stop: &Stop, position: &Position, bounds: Bounds) -> Option<i64> {
    match stop {
        Stop::DatabaseWentBack { .. } if position.position <= bounds.end => {
            Some(position.position.max(bounds.start))
        }
        Stop::DatabaseWentBack { .. }
        | Stop::LogStartBeyond { .. }
        | Stop::PositionBeyondEnd { .. }
        | Stop::AnotherLog { .. } => Some(bounds.start),
        Stop::PartitionCount { .. }
        | Stop::OtherTopic { .. }
        | Stop::SharedGroup { .. }
        | Stop::ParkBrake { .. }
        | Stop::Contradiction(_) => None,
    }
}
