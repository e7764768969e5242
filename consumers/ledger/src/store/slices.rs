//! Adding to the slices of balances: look up those whose places are not known, update those that are there by where
//! they lie, copy in the rest.
//!
//! Nobody else writes a partition's slices while its lock is held, so nothing comes between these statements. One
//! `insert .. on conflict` costs a third more: it looks up each slice row by row, and writes each new one twice.

use sqlx::PgConnection;

use crate::pipeline::outcome::Delta;
use crate::store::copy::{COPY_BALANCES, Rows};
use crate::store::error::{During, Error};
use crate::store::micros::Micros;
use crate::store::places::{Found, Places};
use crate::store::tid::Tid;
use crate::store::write::copy;

/// Adds to the slices. Gives what each one's `last_seq` was before, in their order; none where the batch makes it.
pub(super) async fn add(
    connection: &mut PgConnection,
    deltas: &[Delta<'_>],
    places: &mut Places,
    buffer: &mut Rows,
) -> Result<Vec<Option<i64>>, Error> {
    let mut before = vec![None; deltas.len()];
    let rounds = deltas.iter().map(|delta| delta.round).max();
    for round in 0..=rounds.unwrap_or(0) {
        let of_round = deltas
            .iter()
            .enumerate()
            .filter(|(_, delta)| delta.round == round);
        let (indexes, changes): (Vec<_>, Vec<_>) = of_round.unzip();
        if changes.is_empty() {
            continue;
        }
        let found = find(connection, &changes, places).await?;
        update(connection, &changes, &found, places).await?;
        insert(connection, &changes, &found, buffer).await?;
        for (index, found) in indexes.into_iter().zip(found) {
            before[index] = found.map(|found| found.last_seq);
        }
    }
    Ok(before)
}

/// The slices that are there, in the order of the deltas, which are sorted and of one slice each.
async fn find(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    places: &Places,
) -> Result<Vec<Option<Found>>, Error> {
    let mut found: Vec<_> = deltas
        .iter()
        .map(|delta| places.get(places.name(delta)))
        .collect();
    let unknown = (0..deltas.len()).filter(|index| found[*index].is_none());
    let unknown: Vec<_> = unknown.collect();
    if unknown.is_empty() {
        return Ok(found);
    }
    let of = || unknown.iter().map(|index| deltas[*index]);
    // One row of arrays: a row each would cost the lane a third as much as all else that it does for a slice.
    let there = sqlx::query!(
        r#"select array_agg(k.place) as places, array_agg(b.ctid) as "tids: Vec<Tid>",
             array_agg(b.last_seq) as last_seqs
         from unnest($1::text[], $2::text[], $3::int[]) with ordinality k(account, currency, partition, place)
         join millrace.balances b on b.account = k.account and b.currency = k.currency
             and b.partition = k.partition"#,
        &of().map(|d| d.account).collect::<Vec<_>>() as _,
        &of().map(|d| d.currency).collect::<Vec<_>>() as _,
        &of().map(|d| d.partition).collect::<Vec<_>>(),
    )
    .fetch_one(connection)
    .await?;
    // Null where there is none.
    let tids = there.tids.unwrap_or_default().into_iter();
    let last_seqs = there.last_seqs.unwrap_or_default();
    let slices = tids
        .zip(last_seqs)
        .map(|(tid, last_seq)| Found { tid, last_seq });
    for (place, slice) in there.places.unwrap_or_default().into_iter().zip(slices) {
        found[*at(&unknown, place)?] = Some(slice);
    }
    Ok(found)
}

/// Changes what is there, and remembers where it lies by then.
async fn update(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    found: &[Option<Found>],
    places: &mut Places,
) -> Result<(), Error> {
    let there = deltas.iter().zip(found);
    let there: Vec<_> = there
        .filter_map(|(d, found)| Some((*d, (*found)?)))
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let of = |field: fn(&Delta<'_>) -> i64| there.iter().map(|(d, _)| field(d)).collect::<Vec<_>>();
    let times: Vec<_> = there
        .iter()
        .map(|(d, _)| Micros(d.last_occurred_at))
        .collect();
    let changed = sqlx::query!(
        r#"with changed as (
             update millrace.balances b set
                 transactions = b.transactions + c.transactions,
                 last_occurred_at = greatest(b.last_occurred_at, c.last_occurred_at),
                 debits = b.debits + c.debits,
                 credits = b.credits + c.credits,
                 last_seq = c.last_seq
             from unnest($1::tid[], $2::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[],
                 $7::int[], $8::bigint[])
                 with ordinality c(tid, transactions, last_occurred_at, debits, credits, last_seq, partition,
                     previous, place)
             where b.ctid = c.tid and b.partition = c.partition and b.last_seq = c.previous
             returning c.place, b.ctid
         )
         select array_agg(place) as places, array_agg(ctid) as "tids: Vec<Tid>",
             pg_relation_filenode('millrace.balances')::bigint as "file!"
         from changed"#,
        &there.iter().map(|(_, f)| f.tid).collect::<Vec<_>>() as _,
        &of(|d| d.transactions),
        &times as _,
        &of(|d| d.debits),
        &of(|d| d.credits),
        &of(|d| d.last_seq),
        &there.iter().map(|(d, _)| d.partition).collect::<Vec<_>>(),
        &there.iter().map(|(_, f)| f.last_seq).collect::<Vec<_>>(),
    )
    .fetch_one(connection)
    .await?;
    let tids = changed.tids.unwrap_or_default();
    if !places.is_in(changed.file) || tids.len() != there.len() {
        return Err(elsewhere());
    }
    for (place, tid) in changed.places.unwrap_or_default().into_iter().zip(tids) {
        let (delta, _) = at(&there, place)?;
        let last_seq = delta.last_seq;
        places.remember(places.name(delta), Found { tid, last_seq });
    }
    Ok(())
}

/// One of those that were sent, by its place among them as SQL counts.
fn at<T>(sent: &[T], place: i64) -> Result<&T, Error> {
    let index = usize::try_from(place - 1).ok();
    index
        .and_then(|index| sent.get(index))
        .ok_or_else(elsewhere)
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
