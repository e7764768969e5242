//! An account's transactions, newest first, along its threads: each slice (partition and currency) names the last
//! one, each transaction the one before it. There is no index on accounts to find them by.

use std::fmt::Write as _;

use sqlx::PgPool;

use crate::database::Error;
use crate::reports::query::invalid_cursor;
use crate::store::accounts::{Point, points};
use crate::store::time;
use crate::store::transactions::Entry;

/// The most threads that a cursor may hold: every partition in several currencies.
const THREADS_MAX: usize = 2_000;

/// Where a thread goes on: the partition and seq of its next transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    partition: i32,
    seq: i64,
}

const HEADS: &str = "select partition, last_seq from reports.account_partitions where account = $1";

/// A page is merged from as many rows of every thread. Within a thread the order is that of seq, whatever the
/// clocks of the partition's owners were: so that a page takes each thread from its head, and nothing between.
const PAGE: &str = concat!(
    "with recursive thread as (
        select h.place, 1 as depth, t.recorded_at as at, t.*
        from unnest($2::int[], $3::bigint[]) with ordinality h(partition, seq, place)
        join reports.transactions t on t.partition = h.partition and t.seq = h.seq
        where $1 in (t.debit_account, t.credit_account)
        union all
        select w.place, w.depth + 1, least(w.at, t.recorded_at), t.*
        from thread w
        join reports.transactions t on t.partition = w.partition
            and t.seq = case when w.debit_account = $1 then w.debit_previous else w.credit_previous end
        where w.depth < $4
     )
     select place, case when debit_account = $1 then debit_previous else credit_previous end as previous,
        id, kind, debit_account, credit_account, amount, currency, exponent, ",
    time!("occurred_at"),
    " as occurred_at, ",
    time!("recorded_at"),
    " as recorded_at, reference, source, partition, seq, log_offset as offset
     from thread
     order by at desc, partition desc, thread.seq desc
     limit $4"
);

#[derive(sqlx::FromRow)]
struct Found {
    /// Which head it was reached from, from 1.
    place: i64,
    /// Where its thread goes on.
    previous: Option<i64>,
    #[sqlx(flatten)]
    entry: Entry,
}

/// The newest first. What is posted later never moves a page: no cursor that was given out leads to it.
pub async fn of_account(
    pool: &PgPool,
    account: &str,
    cursor: Option<&str>,
    limit: u32,
) -> Result<(Vec<Entry>, Option<String>), Error> {
    let mut heads: Vec<Option<Head>> = match cursor {
        Some(text) => parse_cursor(text).ok_or_else(invalid_cursor)?,
        None => sqlx::query_as(HEADS).bind(account).fetch_all(pool).await?,
    }
    .into_iter()
    .map(|(partition, seq)| Some(Head { partition, seq }))
    .collect();
    let (partitions, seqs): (Vec<_>, Vec<_>) =
        heads.iter().flatten().map(|h| (h.partition, h.seq)).unzip();
    let mut found: Vec<Found> = sqlx::query_as(PAGE)
        .bind(account)
        .bind(partitions)
        .bind(seqs)
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let entries = found
        .into_iter()
        .map(
            |Found {
                 place,
                 previous,
                 entry,
             }| {
                let head = usize::try_from(place - 1)
                    .ok()
                    .and_then(|place| heads.get_mut(place));
                if let Some(head) = head {
                    *head = previous.map(|seq| Head {
                        partition: entry.partition,
                        seq,
                    });
                }
                entry
            },
        )
        .collect();
    Ok((entries, more.then(|| cursor_at(&heads))))
}

/// The balance after each of the last [`POINTS_MAX`](crate::store::accounts::POINTS_MAX) transactions, by when they were posted, oldest first.
pub async fn by_transaction(
    pool: &PgPool,
    account: &str,
    currency: &str,
) -> Result<Vec<Point>, Error> {
    // Backwards from the balance of the same snapshot: the ledger and the balance are stored together.
    let query = concat!(
        "with recursive thread as (
            select 1 as depth, t.recorded_at as at, t.*
            from reports.account_partitions p
            join reports.transactions t on t.partition = p.partition and t.seq = p.last_seq
            where p.account = $1 and p.currency = $2
            union all
            select w.depth + 1, least(w.at, t.recorded_at), t.*
            from thread w
            join reports.transactions t on t.partition = w.partition
                and t.seq = case when w.debit_account = $1 then w.debit_previous else w.credit_previous end
            where w.depth < $3
         ), latest as (
            select at, recorded_at, partition, seq,
                case when credit_account = $1 then amount else -amount end as change
            from thread
            order by at desc, partition desc, seq desc
            limit $3
         )
         select ",
        time!("l.recorded_at"),
        " as at, (b.balance - coalesce(sum(l.change) over (
                order by l.at desc, l.partition desc, l.seq desc
                rows between unbounded preceding and 1 preceding
            ), 0))::text as balance
         from latest l, (select balance from reports.balances where account = $1 and currency = $2) b
         order by l.at desc, l.partition desc, l.seq desc"
    );
    points(pool, query, account, currency).await
}

/// `PARTITION.SEQ` of every thread that goes on, joined by `-`.
fn cursor_at(heads: &[Option<Head>]) -> String {
    let mut text = String::new();
    for head in heads.iter().flatten() {
        let join = if text.is_empty() { "" } else { "-" };
        let _ = write!(text, "{join}{}.{}", head.partition, head.seq);
    }
    text
}

fn parse_cursor(text: &str) -> Option<Vec<(i32, i64)>> {
    let heads = text.split('-').map(|head| {
        let (partition, seq) = head.split_once('.')?;
        let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        (is_number(partition) && is_number(seq)).then_some(())?;
        Some((partition.parse().ok()?, seq.parse().ok()?))
    });
    let heads: Vec<_> = heads.take(THREADS_MAX + 1).collect::<Option<_>>()?;
    (heads.len() <= THREADS_MAX).then_some(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_are_cursors() {
        assert_eq!(parse_cursor("11.42"), Some(vec![(11, 42)]));
        assert_eq!(parse_cursor("0.7-11.42"), Some(vec![(0, 7), (11, 42)]));
        let heads = [(0, 7), (11, 42)].map(|(partition, seq)| Some(Head { partition, seq }));
        assert_eq!(cursor_at(&[heads[0], None, heads[1]]), "0.7-11.42");
        let long = vec!["1.1"; THREADS_MAX + 1].join("-");
        for bad in [
            "",
            "1",
            "1.2.3",
            "1.2-",
            "-1.2",
            "+1.2",
            "a.b",
            "99999999999.0",
            "1.99999999999999999999",
            &long,
        ] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }
}
