//! How far each read model is: the rows of `read_model_positions`.
//!
//! **Lock order**: rows here are only ever taken with `skip locked`, so nobody waits for them and no
//! order is needed.

use sqlx::{FromRow, PgConnection};

use crate::fold::Range;
use crate::model::Model;
use crate::telemetry;

/// The wait after the n-th failure in a row is 2^n seconds, at most this.
const RETRY_MAX_S: i32 = 60;

/// Longer texts of errors are cut to this many characters.
const ERROR_CHARS_MAX: usize = 1_000;

/// A (model, partition) and how far behind it is.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct Lag {
    pub(crate) model: String,
    pub(crate) partition: i32,
    /// Up to here it is folded.
    pub(crate) seq: i64,
    /// Up to here there is something to fold.
    pub(crate) next_seq: i64,
    /// Seconds since it last moved.
    pub(crate) idle_s: f64,
    /// Nobody has folded it yet: it has no row.
    pub(crate) is_new: bool,
    /// Why the last try failed.
    pub(crate) error: Option<String>,
    /// Whether it may be tried again after a failure.
    pub(crate) retry_due: bool,
}

impl Lag {
    pub(crate) fn seqs(&self) -> i64 {
        (self.next_seq - self.seq).max(0)
    }
}

/// A position that this database transaction has locked.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Locked {
    pub(crate) partition: i32,
    pub(crate) seq: i64,
    /// Whether the last try failed.
    pub(crate) has_failed: bool,
}

/// Locks the rows that are there, not locked, and not waiting after a failure.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    model: &Model,
    partitions: &[i32],
) -> Result<Vec<Locked>, sqlx::Error> {
    sqlx::query_as(
        "select partition, seq, error is not null as has_failed from read_model_positions
         where model = $1 and partition = any($2)
             and (error is null or now() >= failed_at + least($3, 2 ^ least(failures, 30)) * interval '1 s')
         for update skip locked",
    )
    .bind(model.name)
    .bind(partitions)
    .bind(RETRY_MAX_S)
    .fetch_all(connection)
    .await
}

/// Creates, and so locks, the rows that are missing.
pub(crate) async fn create(
    connection: &mut PgConnection,
    model: &Model,
    partitions: &[i32],
) -> Result<Vec<Locked>, sqlx::Error> {
    sqlx::query_as(
        "insert into read_model_positions (model, partition)
         select m.model, p.partition
         from read_models m cross join unnest($2::int[]) as p (partition)
         where m.model = $1
         on conflict do nothing
         returning partition, seq, false as has_failed",
    )
    .bind(model.name)
    .bind(partitions)
    .fetch_all(connection)
    .await
}

/// Locks what a background worker wants to fold, and says how far each is now behind.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    model: &Model,
    partitions: &[i32],
) -> Result<Vec<Range>, sqlx::Error> {
    // A row that moved meanwhile is read as it is now, beside an end that is older: hence the filter.
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
        "select m.partition, m.seq, p.next_seq
         from read_model_positions m join positions p on p.partition = m.partition
         where m.model = $1 and m.partition = any($2) and m.seq < p.next_seq
         for update of m skip locked",
    )
    .bind(model.name)
    .bind(partitions)
    .fetch_all(connection)
    .await?;
    let ranges = rows
        .into_iter()
        .map(|(partition, from_seq, next_seq)| Range {
            partition,
            from_seq,
            next_seq,
        });
    Ok(ranges.filter(|range| range.seqs() > 0).collect())
}

/// Every (model, partition) of these models, in no order.
pub(crate) async fn survey(
    connection: &mut PgConnection,
    models: &[&str],
) -> Result<Vec<Lag>, sqlx::Error> {
    sqlx::query_as(
        "select r.model, p.partition, coalesce(m.seq, 0) as seq, p.next_seq,
             coalesce(extract(epoch from now() - m.updated_at), 0)::float8 as idle_s,
             m.partition is null as is_new, m.error,
             coalesce(now() >= m.failed_at + least($2, 2 ^ least(m.failures, 30)) * interval '1 s', true)
                 as retry_due
         from read_models r
         cross join positions p
         left join read_model_positions m on m.model = r.model and m.partition = p.partition
         where r.model = any($1)",
    )
    .bind(models)
    .bind(RETRY_MAX_S)
    .fetch_all(connection)
    .await
}

/// Those of the models that are installed.
pub(crate) async fn installed(
    connection: &mut PgConnection,
    models: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select model from read_models where model = any($1)")
        .bind(models)
        .fetch_all(connection)
        .await
}

/// Records that a model could not be folded in a partition, so that it is tried again later and
/// later. Gives whether that is news. When another worker has the row in hand, its result counts and
/// nothing is recorded. The connection's `search_path` is `millrace`.
pub async fn record_failure(
    connection: &mut PgConnection,
    model: &Model,
    partition: i32,
    error: &str,
) -> Result<bool, sqlx::Error> {
    metrics::counter!(telemetry::FAILURES, "model" => model.name).increment(1);
    create(connection, model, &[partition]).await?;
    let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
    let is_news: Option<bool> = sqlx::query_scalar(
        "with found as (
             select model, partition, error from read_model_positions
             where model = $1 and partition = $2
             for update skip locked
         )
         update read_model_positions p
         set failed_at = now(), failures = p.failures + 1, error = $3
         from found f
         where p.model = f.model and p.partition = f.partition
         returning f.error is distinct from $3",
    )
    .bind(model.name)
    .bind(partition)
    .bind(error)
    .fetch_optional(connection)
    .await?;
    Ok(is_news.unwrap_or(false))
}
