//! How far each partition is.

use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::database::Error;
use crate::store::time;

/// A partition of the log, as the database and its owner know it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// The replica and lane that serve it, or did last.
    pub owner: Option<String>,
    /// What the owner is doing with it; `silent` when it has not reported for 10 seconds.
    pub state: Option<String>,
    /// Why it is paused or stopped, else empty.
    pub detail: Option<String>,
    /// The next log offset to apply.
    pub position: i64,
    /// The offset after the log's last record, as far as the owner and the position tell.
    pub end: Option<i64>,
    /// Offsets between position and end; none when no owner reports.
    pub lag_records: Option<i64>,
    /// Age of the oldest unapplied record in seconds; 0 when there is none, none when it is not known.
    pub lag_seconds: Option<f64>,
    /// When the last batch was applied; RFC 3339.
    #[schema(format = DateTime)]
    pub recorded_at: Option<String>,
    /// Seconds since the owner last reported.
    pub status_age_seconds: Option<f64>,
    /// Stored outcomes.
    pub next_seq: i64,
    /// Goes up when an operator accepts a gap in the log.
    pub incarnation: i32,
}

/// Every partition, ascending.
pub async fn all(pool: &PgPool) -> Result<Vec<Partition>, Error> {
    let query = concat!(
        "select partition, owner, state, detail, position, greatest(log_end, position) as end, lag_records,
            oldest_unapplied_age_s::float8 as lag_seconds, ",
        time!("recorded_at"),
        " as recorded_at, status_age_s::float8 as status_age_seconds, next_seq, incarnation
         from reports.freshness order by partition"
    );
    Ok(sqlx::query_as(query).fetch_all(pool).await?)
}

/// How current a read model is, over all partitions.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct ReadModel {
    /// The name of its report.
    pub model: String,
    /// `inline`: follows with the ledger's own batches; `background`: within seconds.
    pub mode: String,
    /// Stored outcomes that are not in the report yet.
    pub lag_seqs: i64,
    /// Age of the oldest of them in seconds; 0 when there is none.
    pub lag_seconds: f64,
    /// Partitions whose last fold failed.
    pub failed_partitions: i64,
}

/// Every read model.
pub async fn read_models(pool: &PgPool) -> Result<Vec<ReadModel>, Error> {
    let query = "select model, mode, sum(lag_seqs)::bigint as lag_seqs,
            max(oldest_unfolded_age_s)::float8 as lag_seconds, count(error) as failed_partitions
         from reports.read_model_freshness group by model, mode order by model";
    Ok(sqlx::query_as(query).fetch_all(pool).await?)
}
