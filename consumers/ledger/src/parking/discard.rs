//! Discard: open records that will never be applied.

use crate::parking::replay::lock;
use crate::parking::{Error, Order, Resolved, settle};
use crate::pipeline::outcome::Resolution;
use crate::pipeline::plan::{Resolving, plan_discard};
use crate::record::BATCH_RECORDS_MAX;
use crate::store::Store;

/// Gives up exactly the chosen records; what waits behind them stays parked until it is replayed. `clock`
/// gives microseconds since 1970.
pub async fn discard(
    store: &mut impl Store,
    order: Order<'_>,
    clock: impl Fn() -> i64,
    mut progress: impl FnMut(&Resolved),
) -> Result<Resolved, Error> {
    let mut resolved = Resolved::default();
    let mut after_seq = -1;
    let mut tries = 0;
    loop {
        let result = round(store, order, after_seq, clock()).await;
        if !matches!(result, Ok(Some(_))) || order.dry_run {
            store.rollback().await;
        }
        match settle(store, order.partition, result, &mut tries).await? {
            None => {}
            Some(None) => return Ok(resolved),
            Some(Some((count, last_seq))) => {
                after_seq = last_seq;
                *resolved.records.entry("discarded").or_default() += count;
                progress(&resolved);
            }
        }
    }
}

/// One database transaction: how many, and the last one's `seq`; none when nothing is left.
async fn round(
    store: &mut impl Store,
    order: Order<'_>,
    after_seq: i64,
    now: i64,
) -> Result<Option<(u64, i64)>, Error> {
    let position = lock(store, order.partition).await?;
    let open = store
        .open_parked(
            order.partition,
            order.selection,
            after_seq,
            BATCH_RECORDS_MAX,
        )
        .await?;
    let Some(last_seq) = open.last().map(|parked| parked.seq) else {
        return Ok(None);
    };
    let parked_seqs: Vec<_> = open
        .iter()
        .filter(|parked| parked.is_chosen)
        .map(|parked| parked.seq)
        .collect();
    let resolving = Resolving {
        parked_seqs: &parked_seqs,
        resolution: Resolution::Discarded,
        reason: order.reason,
        operator: order.operator,
    };
    if !order.dry_run && !parked_seqs.is_empty() {
        store
            .write(&plan_discard(&position, resolving, now))
            .await?;
    }
    if !order.dry_run {
        store.commit().await?;
    }
    Ok(Some((parked_seqs.len() as u64, last_seq)))
}
