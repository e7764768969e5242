//! What the console's first page shows besides the partitions.

use sqlx::PgPool;

use crate::database::Error;
use crate::store::{Whole, time};

/// Verdicts and conservation over all partitions.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub struct Totals {
    /// Records that were posted.
    #[sqlx(try_from = "String")]
    pub posted: Whole,
    /// Records that were known already.
    #[sqlx(try_from = "String")]
    pub duplicate: Whole,
    /// Records that were rejected or refused.
    #[sqlx(try_from = "String")]
    pub rejected: Whole,
    /// Parked records that are open.
    #[sqlx(try_from = "String")]
    pub parked: Whole,
    /// Parked records that an operator gave up.
    #[sqlx(try_from = "String")]
    pub discarded: Whole,
    /// The sum of the five.
    #[sqlx(try_from = "String")]
    pub records: Whole,
    /// Offsets without a record.
    #[sqlx(try_from = "String")]
    pub skipped: Whole,
    /// Offsets between the log's start and the positions.
    #[sqlx(try_from = "String")]
    pub offsets: Whole,
    /// Whether in every partition offsets = records + skipped.
    pub holds: bool,
}

/// Counts every batch.
pub async fn totals(pool: &PgPool) -> Result<Totals, Error> {
    let sum = "select coalesce(sum(posted), 0)::text as posted, coalesce(sum(duplicate), 0)::text as duplicate,
            coalesce(sum(rejected), 0)::text as rejected, coalesce(sum(parked), 0)::text as parked,
            coalesce(sum(discarded), 0)::text as discarded, coalesce(sum(records), 0)::text as records,
            coalesce(sum(skipped), 0)::text as skipped,
            coalesce(sum(position - start_offset), 0)::text as offsets, coalesce(bool_and(holds), true) as holds
         from reports.conservation";
    Ok(sqlx::query_as(sum).fetch_one(pool).await?)
}

/// What was applied in an interval.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Interval {
    /// How many intervals ago, 0 is the last whole one.
    pub ago: i32,
    /// Records with any verdict.
    pub records: i64,
    /// Of them posted.
    pub posted: i64,
    /// Of them duplicates.
    pub duplicate: i64,
    /// Of them rejected or refused.
    pub rejected: i64,
}

/// The last `count` whole intervals of `seconds`; those without a batch are left out. The newest last.
pub async fn throughput(pool: &PgPool, seconds: i32, count: i32) -> Result<Vec<Interval>, Error> {
    let query = "with clock as (select floor(extract(epoch from now()) / $1)::bigint as slot)
         select (c.slot - 1 - b.slot)::int as ago, sum(b.records)::bigint as records, sum(b.posted)::bigint as posted,
            sum(b.duplicate)::bigint as duplicate, sum(b.rejected)::bigint as rejected
         from clock c, lateral (
            select floor(extract(epoch from recorded_at) / $1)::bigint as slot, posted, duplicate, rejected,
                posted + duplicate + rejected + greatest(parked, 0) + discarded as records
            from reports.batches
            where recorded_at >= to_timestamp((c.slot - $2) * $1) and recorded_at < to_timestamp(c.slot * $1)
         ) b
         group by 1 order by 1 desc";
    Ok(sqlx::query_as(query)
        .bind(seconds)
        .bind(count)
        .fetch_all(pool)
        .await?)
}

/// How often records were rejected, or parked and are open, by reason.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ByReason {
    /// The stable name.
    pub reason: String,
    /// How often.
    pub count: i64,
    /// When last; RFC 3339.
    pub last_at: String,
}

/// Rejections by reason, the most frequent first.
pub async fn rejections_by_reason(pool: &PgPool) -> Result<Vec<ByReason>, Error> {
    let query = concat!(
        "select coalesce(reason, '?') as reason, count(*) as count, ",
        time!("max(recorded_at)"),
        " as last_at from reports.rejections group by 1 order by 2 desc, 1"
    );
    Ok(sqlx::query_as(query).fetch_all(pool).await?)
}

/// Open parked records by reason, the most frequent first.
pub async fn parked_by_reason(pool: &PgPool) -> Result<Vec<ByReason>, Error> {
    let query = concat!(
        "select coalesce(reason, '?') as reason, count(*) as count, ",
        time!("max(parked_at)"),
        " as last_at from reports.parked where resolution is null group by 1 order by 2 desc, 1"
    );
    Ok(sqlx::query_as(query).fetch_all(pool).await?)
}
