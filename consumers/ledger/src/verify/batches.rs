//! Reads positions and batches, and finds what they do not account for.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::chain::{Head, Numbers};
use crate::store::Micros;
use crate::verify::text;
use crate::verify::walk::{End, Start};

/// How many rows, and how many offsets of the log, are in memory at a time. One batch may have more.
const ROWS_MAX: i64 = 20_000;

/// How many bytes of refused and parked records. One batch may have more.
const BYTES_MAX: i64 = 16 * 1024 * 1024;

/// A row of `batches`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    #[serde(flatten, with = "text::NumbersText")]
    pub(super) numbers: Numbers,
    #[serde(with = "hex")]
    pub(super) chain_head: Vec<u8>,
    /// Of a batch with which an incarnation begins that is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) acceptance: Option<Acceptance>,
}

/// What the row of `incarnations` says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Acceptance {
    pub(super) previous_position: i64,
    pub(super) reason: String,
    pub(super) operator: String,
    #[serde(with = "text::time")]
    pub(super) accepted_at: Micros,
}

/// Every partition's row in `positions`.
pub(super) async fn ends(connection: &mut PgConnection) -> Result<Vec<End>, sqlx::Error> {
    sqlx::query_as!(
        End,
        "select partition, position, start_offset, incarnation, next_seq, next_batch, chain_head,
             parked_open, anchor_offset, anchor_timestamp, anchor_digest
         from millrace.positions order by partition"
    )
    .fetch_all(connection)
    .await
}

/// The end of the last batch that was recorded before a moment (microseconds since 1970); none when
/// there is no such batch.
pub(super) async fn last_before(
    connection: &mut PgConnection,
    end: &End,
    before: i64,
) -> Result<Option<Start>, sqlx::Error> {
    let row = sqlx::query!(
        "select batch, incarnation, next_offset, next_seq, chain_head
         from millrace.batches
         where partition = $1 and batch < $2 and recorded_at < $3
         order by batch desc limit 1",
        end.partition,
        end.next_batch,
        Micros(before) as _
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| {
        Some(Start {
            head: Head::try_from(row.chain_head).ok()?,
            next_batch: row.batch + 1,
            next_seq: row.next_seq,
            incarnation: row.incarnation,
            next_offset: Some(row.next_offset),
        })
    }))
}

/// The next batches of a partition before its end, at least one, with not much more than [`ROWS_MAX`] and
/// [`BYTES_MAX`]. What was applied since the end was read is not among them.
pub(super) async fn read_batches(
    connection: &mut PgConnection,
    end: &End,
    next_batch: i64,
    next_seq: i64,
) -> Result<Vec<Batch>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select b.partition, b.batch, b.incarnation, from_offset, next_offset, first_seq, next_seq,
             posted, duplicate, rejected, refused, parked, discarded, skipped,
             recorded_at as "recorded_at: Micros", chain_head,
             i.previous_position as "previous_position?", i.reason as "reason?",
             i.operator as "operator?", i.accepted_at as "accepted_at?: Micros",
             coalesce(case when refused > 0 then (
                 select sum(octet_length(r.value) + octet_length(r.headers)) from millrace.refused r
                 where r.partition = b.partition and r.seq >= b.first_seq and r.seq < b.next_seq
             ) end, 0) + coalesce(case when parked > 0 then (
                 select sum(octet_length(r.value) + octet_length(r.headers)) from millrace.parked r
                 where r.partition = b.partition and r.seq >= b.first_seq and r.seq < b.next_seq
             ) end, 0) as "bytes!"
         from millrace.batches b
         left join millrace.incarnations i on i.partition = b.partition and i.batch = b.batch
             and i.incarnation = b.incarnation
         where b.partition = $1 and b.batch >= $2 and b.batch < least($2 + 1000, $4)
             and (b.batch = $2 or next_seq <= $3)
         order by b.batch"#,
        end.partition,
        next_batch,
        next_seq + ROWS_MAX,
        end.next_batch
    )
    .fetch_all(connection)
    .await?;
    let (mut offsets, mut bytes) = (0, 0);
    Ok(rows
        .into_iter()
        .take_while(|row| {
            let is_first = row.batch == next_batch;
            offsets += row.next_offset - row.from_offset;
            bytes += row.bytes;
            is_first || (offsets <= ROWS_MAX && bytes <= BYTES_MAX)
        })
        .map(|row| Batch {
            numbers: Numbers {
                partition: row.partition,
                batch: row.batch,
                incarnation: row.incarnation,
                from_offset: row.from_offset,
                next_offset: row.next_offset,
                first_seq: row.first_seq,
                next_seq: row.next_seq,
                posted: row.posted,
                duplicate: row.duplicate,
                rejected: row.rejected,
                refused: row.refused,
                parked: row.parked,
                discarded: row.discarded,
                skipped: row.skipped,
                recorded_at: row.recorded_at.0,
            },
            chain_head: row.chain_head,
            acceptance: row.previous_position.and_then(|previous_position| {
                Some(Acceptance {
                    previous_position,
                    reason: row.reason?,
                    operator: row.operator?,
                    accepted_at: row.accepted_at?,
                })
            }),
        })
        .collect())
}

/// Every table that the chain accounts for, its number, and where a partition's next number is.
const NUMBERED: [(&str, &str, &str); 5] = [
    ("ledger", "seq", "next_seq"),
    ("refused", "seq", "next_seq"),
    ("parked", "seq", "next_seq"),
    ("parked_resolutions", "seq", "next_seq"),
    ("batches", "batch", "next_batch"),
];

/// A row that no batch accounts for.
#[derive(Debug)]
pub(super) struct Unaccounted {
    pub(super) table: &'static str,
    pub(super) partition: i32,
    /// Its `seq` or `batch`.
    pub(super) number: i64,
}

/// Rows beyond the end of their partition, or of a partition without a position; at most `limit` of each
/// table. Looks at both ends of each partition in the primary key's index, and between the partitions.
pub(super) async fn unaccounted(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Unaccounted>, sqlx::Error> {
    let mut all = Vec::new();
    for (table, number, next) in NUMBERED {
        let rows: Vec<(i32, i64)> = sqlx::query_as(AssertSqlSafe(format!(
            "with p as (
                 select partition, {next} as next, lag(partition) over (order by partition) as previous
                 from millrace.positions
             ), gaps as (
                 select coalesce(previous, -1) as low, partition as high from p
                 union all select coalesce(max(partition), -1), 2147483647 from p
             )
             select r.* from p cross join lateral (
                 select partition, {number} from millrace.{table} t
                 where t.partition = p.partition and t.{number} >= p.next order by 2 limit $1) r
             union all select r.* from p cross join lateral (
                 select partition, {number} from millrace.{table} t
                 where t.partition = p.partition and t.{number} < 0 order by 2 limit $1) r
             union all select r.* from gaps cross join lateral (
                 select partition, {number} from millrace.{table} t
                 where t.partition > gaps.low and t.partition < gaps.high order by 1, 2 limit $1) r
             union all (select partition, {number} from millrace.{table}
                 where partition < 0 order by 1, 2 limit $1)
             order by 1, 2 limit $1"
        )))
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
        let unaccounted = |(partition, number)| Unaccounted {
            table,
            partition,
            number,
        };
        all.extend(rows.into_iter().map(unaccounted));
    }
    Ok(all)
}
