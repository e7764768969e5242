//! The operator of what is parked: replays and discards beside the lanes, and mends what can be mended.

use std::rc::Rc;

use millrace_ledger::parking::{self, Order, Resolved, Selection};
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::store::Error;
use millrace_rules::ParkReason;
use rand::RngExt as _;

use crate::backend::Backend;
use crate::gate::{Gated, Orphans};
use crate::trace::NONE;
use crate::world::{Handle, MILLI, SECOND, VirtualClock};

/// Works until the end of the run; once the faults have stopped, until nothing is parked any more.
pub(crate) async fn resolve<B: Backend>(
    world: Handle,
    actor: usize,
    backend: Rc<B>,
    orphans: Orphans<B::Store>,
) {
    let mut store = Gated::new(&world, actor, &backend, &orphans);
    let often = world.state().random.random_range(1..10);
    loop {
        let (after, is_calm) = {
            let mut state = world.state();
            let after = state.random.random_range(100 * MILLI..often * SECOND);
            (after, !state.chaos)
        };
        world.turn(actor, after).await;
        if is_calm || world.state().random.random_range(0..30) == 0 {
            mend(&world, actor, &*backend).await;
        }
        let waiting = world.state().oracle.waiting();
        if waiting.is_empty() {
            continue;
        }
        let partition = waiting[world.state().random.random_range(0..waiting.len())];
        let selection = if is_calm {
            Selection::default()
        } else {
            draw(&world)
        };
        let dry_run = !is_calm && world.state().random.random_bool(0.1);
        let order = Order {
            partition,
            selection: &selection,
            reason: "simulated",
            operator: "simulation",
            dry_run,
        };
        let give_up = is_calm || world.state().random.random_bool(0.3);
        if let Err(parking::Error::Store(Error::Contradiction(why))) =
            work(&world, actor, &mut store, order, give_up).await
        {
            world.fail(format!("parked records of partition {partition}: {why}"));
        }
    }
}

/// Replays, and discards what cannot be replayed.
async fn work<B: Backend>(
    world: &Handle,
    actor: usize,
    store: &mut Gated<B>,
    order: Order<'_>,
    give_up: bool,
) -> Result<(), parking::Error> {
    let partitions = world.state().workload.partitions();
    let clock = VirtualClock(Handle::clone(world));
    let now = || clock.wall_micros();
    world.note(actor, "replay", &[order.partition.into()]);
    let Resolved { remaining, .. } = parking::replay(store, order, partitions, now, |_| ()).await?;
    if !give_up {
        return Ok(());
    }
    for record in remaining {
        let offset = record.log_offset;
        if [ParkReason::Behind, ParkReason::DatabaseRefused]
            .iter()
            .any(|reason| reason.as_str() == record.reason)
        {
            continue;
        }
        let selection = Selection {
            log_offset: Some(offset),
            ..Selection::default()
        };
        let order = Order {
            selection: &selection,
            ..order
        };
        world.note(actor, "discard", &[order.partition.into(), offset]);
        parking::discard(store, order, now, |_| ()).await?;
    }
    Ok(())
}

/// Some of a partition's parked records: a key's, a reason's, or all.
fn draw(world: &Handle) -> Selection {
    let mut state = world.state();
    let accounts = state.workload.accounts().to_vec();
    let random = &mut state.random;
    let account = &accounts[random.random_range(0..accounts.len())];
    let reason = ParkReason::ALL[random.random_range(0..ParkReason::ALL.len())];
    match random.random_range(0..4) {
        0 => Selection {
            key: Some(account.as_bytes().to_vec()),
            ..Selection::default()
        },
        1 => Selection {
            reason: Some(reason.code()),
            ..Selection::default()
        },
        _ => Selection::default(),
    }
}

async fn mend<B: Backend>(world: &Handle, actor: usize, backend: &B) {
    if world.state().is_database_away() || backend.mend().await.is_err() {
        return;
    }
    world.state().oracle.mend();
    world.note(actor, "mended", &[NONE]);
}
