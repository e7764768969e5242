//! One fold: adds ranges to a model's table and moves its positions over them.

use std::time::Duration;

use sqlx::PgConnection;

use crate::error::Error;
use crate::model::Model;
use crate::telemetry;

/// Outcomes of one partition: `seq` in `[from_seq, next_seq)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) partition: i32,
    pub(crate) from_seq: i64,
    pub(crate) next_seq: i64,
}

impl Range {
    pub(crate) fn seqs(&self) -> i64 {
        self.next_seq - self.from_seq
    }
}

/// How much the ranges are together.
pub(crate) fn seqs(ranges: &[Range]) -> u64 {
    let seqs = ranges.iter().map(|range| range.seqs().max(0)).sum::<i64>();
    seqs.unsigned_abs()
}

/// Folds ranges whose position rows this database transaction has locked, and moves the positions.
/// Gives the number of slices written.
pub(crate) async fn fold_and_advance(
    connection: &mut PgConnection,
    model: &Model,
    ranges: &[Range],
) -> Result<u64, Error> {
    let slices = fold(connection, model, ranges).await?;
    advance(connection, model, ranges).await?;
    Ok(slices)
}

/// Adds the ranges to the model's table, whichever table that is by the connection's `search_path`.
pub(crate) async fn fold(
    connection: &mut PgConnection,
    model: &Model,
    ranges: &[Range],
) -> Result<u64, sqlx::Error> {
    let is_first = ranges.iter().all(|range| range.from_seq == 0);
    let fold = if is_first {
        &model.first_fold
    } else {
        &model.fold
    };
    let done = sqlx::query(fold.clone())
        .bind(column(ranges, |r| r.partition))
        .bind(column(ranges, |r| r.from_seq))
        .bind(column(ranges, |r| r.next_seq))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Moves the positions, only from where the ranges began, and clears what failed before.
async fn advance(
    connection: &mut PgConnection,
    model: &Model,
    ranges: &[Range],
) -> Result<(), Error> {
    let moved = sqlx::query(
        "update read_model_positions p
         set seq = r.next_seq, updated_at = now(), failed_at = null, error = null, failures = 0
         from unnest($2::int[], $3::bigint[], $4::bigint[]) as r (partition, from_seq, next_seq)
         where p.model = $1 and p.partition = r.partition and p.seq = r.from_seq",
    )
    .bind(model.name)
    .bind(column(ranges, |r| r.partition))
    .bind(column(ranges, |r| r.from_seq))
    .bind(column(ranges, |r| r.next_seq))
    .execute(connection)
    .await?
    .rows_affected();
    if moved == ranges.len() as u64 {
        Ok(())
    } else {
        Err(Error::Broken(format!(
            "{moved} of {} positions are where the lock found them",
            ranges.len()
        )))
    }
}

/// Counts a fold that worked: of so many `seq`, into so many slices.
pub(crate) fn count(model: &Model, seqs: u64, slices: u64, took: Duration) {
    metrics::counter!(telemetry::FOLDS, "model" => model.name).increment(1);
    metrics::counter!(telemetry::SEQS, "model" => model.name).increment(seqs);
    metrics::counter!(telemetry::ROWS, "model" => model.name).increment(slices);
    metrics::histogram!(telemetry::FOLD_SECONDS, "model" => model.name).record(took);
}

fn column<T>(ranges: &[Range], field: impl Fn(&Range) -> T) -> Vec<T> {
    ranges.iter().map(field).collect()
}
