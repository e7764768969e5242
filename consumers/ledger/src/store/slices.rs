//! Adding to the slices of balances: look them up, update those that are there by where they lie, copy in the rest.
//!
//! Nobody else writes a partition's slices while its lock is held, so nothing comes between these statements. One
//! `insert .. on conflict` costs a third more: it looks up each slice row by row, and writes each new one twice.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use sqlx::PgConnection;

use crate::pipeline::outcome::Delta;
use crate::store::copy::{COPY_BALANCES, Rows};
use crate::store::error::{During, Error};
use crate::store::micros::Micros;
use crate::store::tid::Tid;
use crate::store::write::copy;

/// Slices of one partition and currency are looked up in a statement of their own when there are so many of them on
/// average; it costs a quarter less per slice than one for all, and a round trip.
const GROUP_SLICES_MIN: usize = 64;

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
    let mut found = vec![None; deltas.len()];
    let groups = groups(deltas);
    if groups.len() * GROUP_SLICES_MIN > deltas.len() {
        find_all(connection, deltas, &mut found).await?;
        return Ok(found);
    }
    for group in groups {
        find_of(connection, deltas, &group, &mut found).await?;
    }
    Ok(found)
}

/// Slices of one partition and currency.
struct Group {
    partition: i32,
    currency: &'static str,
    /// Their places among the deltas, ascending.
    places: Vec<usize>,
}

fn groups(deltas: &[&Delta<'_>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut numbers = HashMap::with_hasher(RandomState::default());
    for (place, delta) in deltas.iter().enumerate() {
        let number = *numbers
            .entry((delta.partition, delta.currency))
            .or_insert(groups.len());
        if number == groups.len() {
            groups.push(Group {
                partition: delta.partition,
                currency: delta.currency,
                places: Vec::new(),
            });
        }
        groups[number].places.push(place);
    }
    groups
}

async fn find_all(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    found: &mut [Option<Found>],
) -> Result<(), Error> {
    let rows = sqlx::query!(
        r#"select k.place as "place!", b.ctid as "tid!: Tid", b.last_seq
         from unnest($1::text[], $2::text[], $3::int[]) with ordinality k(account, currency, partition, place)
         join millrace.balances b on b.account = k.account and b.currency = k.currency
             and b.partition = k.partition"#,
        &deltas.iter().map(|d| d.account).collect::<Vec<_>>() as _,
        &deltas.iter().map(|d| d.currency).collect::<Vec<_>>() as _,
        &deltas.iter().map(|d| d.partition).collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        let slot = place.and_then(|place| found.get_mut(place));
        *slot.ok_or_else(elsewhere)? = Some(Found {
            tid: row.tid,
            last_seq: row.last_seq,
        });
    }
    Ok(())
}

async fn find_of(
    connection: &mut PgConnection,
    deltas: &[&Delta<'_>],
    group: &Group,
    found: &mut [Option<Found>],
) -> Result<(), Error> {
    let accounts: Vec<_> = group
        .places
        .iter()
        .map(|place| deltas[*place].account)
        .collect();
    let rows = sqlx::query!(
        r#"select account, ctid as "tid!: Tid", last_seq from millrace.balances
         where account = any($1) and currency = $2 and partition = $3"#,
        &accounts as _,
        group.currency,
        group.partition
    )
    .fetch_all(connection)
    .await?;
    // The index hands them out in its order, which is that of the deltas; another plan might not.
    let mut next = 0;
    for row in rows {
        let account = row.account.as_str();
        while accounts.get(next).is_some_and(|known| *known < account) {
            next += 1;
        }
        if accounts.get(next) != Some(&account) {
            next = accounts.binary_search(&account).map_err(|_| elsewhere())?;
        }
        found[group.places[next]] = Some(Found {
            tid: row.tid,
            last_seq: row.last_seq,
        });
    }
    Ok(())
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
fn elsewhere() -> Error {
    Error::Retry("slices of balances were changed meanwhile".into())
}
