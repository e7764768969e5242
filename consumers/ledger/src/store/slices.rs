//! Adding to the slices of balances: look them up, update those that are there by where they lie, copy in the rest.
//!
//! Nobody else writes a partition's slices while its lock is held, so nothing comes between these statements. One
//! `insert .. on conflict` costs a third more: it looks up each slice row by row, and writes each new one twice.

use sqlx::PgConnection;

use crate::pipeline::outcome::Delta;
use crate::store::copy::{COPY_BALANCES, Rows};
use crate::store::error::{During, Error};
use crate::store::micros::Micros;
use crate::store::tid::Tid;
use crate::store::write::copy;

/// A slice as it was before the batch.
#[derive(Debug, Clone, Copy)]
struct Found {
    tid: Tid,
    last_seq: i64,
}

/// Adds to the slices. Gives what each one's `last_seq` was before, in their order; none where the batch makes it.
pub(super) async fn add(
    connection: &mut PgConnection,
    deltas: &[Delta<'_>],
    buffer: &mut Rows,
) -> Result<Vec<Option<i64>>, Error> {
    let mut before = vec![None; deltas.len()];
    let rounds = deltas.iter().map(|delta| delta.round).max();
    for round in 0..=rounds.unwrap_or(0) {
        let of_round = deltas
            .iter()
            .enumerate()
            .filter(|(_, delta)| delta.round == round);
        let (places, changes): (Vec<_>, Vec<_>) = of_round.unzip();
        if changes.is_empty() {
            continue;
        }
        let found = find(connection, &changes).await?;
        update(connection, &changes, &found).await?;
        insert(connection, &changes, &found, buffer).await?;
        for (place, found) in places.into_iter().zip(found) {
            before[place] = found.map(|found: Found| found.last_seq);
        }
    }
    Ok(before)
}

/// The slices that are there, in the order of the deltas, which are sorted and of one slice each.
async fn find(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
) -> Result<Vec<Option<Found>>, Error> {
    // One row of arrays: a row each would cost the lane a third as much as all else that it does for a slice.
    let there = sqlx::query!(
        r#"select array_agg(k.place) as places, array_agg(b.ctid) as "tids: Vec<Tid>",
             array_agg(b.last_seq) as last_seqs
         from unnest($1::text[], $2::text[], $3::int[]) with ordinality k(account, currency, partition, place)
         join millrace.balances b on b.account = k.account and b.currency = k.currency
             and b.partition = k.partition"#,
        &deltas.iter().map(|d| d.account).collect::<Vec<_>>() as _,
        &deltas.iter().map(|d| d.currency).collect::<Vec<_>>() as _,
        &deltas.iter().map(|d| d.partition).collect::<Vec<_>>(),
    )
    .fetch_one(connection)
    .await?;
    let mut found = vec![None; deltas.len()];
    // Null where there is none.
    let places = there.places.unwrap_or_default();
    let tids = there.tids.unwrap_or_default();
    let last_seqs = there.last_seqs.unwrap_or_default();
    for ((place, tid), last_seq) in places.into_iter().zip(tids).zip(last_seqs) {
        let place = usize::try_from(place - 1).ok();
        let slot = place.and_then(|place| found.get_mut(place));
        *slot.ok_or_else(elsewhere)? = Some(Found { tid, last_seq });
    }
    Ok(found)
}

async fn update(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    found: &[Option<Found>],
) -> Result<(), Error> {
    let there = || {
        let all = deltas.iter().zip(found);
        all.filter_map(|(delta, found)| Some((*delta, (*found)?)))
    };
    let tids: Vec<_> = there().map(|(_, found)| found.tid).collect();
    if tids.is_empty() {
        return Ok(());
    }
    let of = |field: fn(&Delta<'_>) -> i64| there().map(|(d, _)| field(d)).collect::<Vec<_>>();
    let times: Vec<_> = there().map(|(d, _)| Micros(d.last_occurred_at)).collect();
    let updated = sqlx::query!(
        "update millrace.balances b set
             transactions = b.transactions + c.transactions,
             last_occurred_at = greatest(b.last_occurred_at, c.last_occurred_at),
             debits = b.debits + c.debits,
             credits = b.credits + c.credits,
             last_seq = c.last_seq
         from unnest($1::tid[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[])
             c(tid, transactions, last_occurred_at, debits, credits, last_seq)
         where b.ctid = c.tid",
        &tids as _,
        &of(|d| d.transactions),
        &times as _,
        &of(|d| d.debits),
        &of(|d| d.credits),
        &of(|d| d.last_seq)
    )
    .execute(connection)
    .await?
    .rows_affected();
    if updated == tids.len() as u64 {
        Ok(())
    } else {
        Err(elsewhere())
    }
}

async fn insert(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    found: &[Option<Found>],
    buffer: &mut Rows,
) -> Result<(), Error> {
    let missing: Vec<&Delta<'_>> = deltas
        .iter()
        .zip(found)
        .filter_map(|(delta, found)| found.is_none().then_some(*delta))
        .collect();
    let during = During::Other;
    copy(
        connection,
        COPY_BALANCES,
        during,
        &missing,
        buffer,
        Rows::balances,
    )
    .await
}

/// Somebody else has changed slices, without the partition's lock.
pub(super) fn elsewhere() -> Error {
    Error::Retry("slices of balances were changed meanwhile".into())
}
