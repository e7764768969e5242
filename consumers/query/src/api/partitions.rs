//! `GET /v1/partitions` and `GET /v1/freshness`.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Query;
use crate::api::answer::{Failures, fresh_for, json};
use crate::api::params::Waiting;
use crate::database::Error;
use crate::store::partitions::{Partition, ReadModel, all, read_models};

/// Every partition.
#[derive(Serialize, ToSchema)]
struct Partitions {
    /// Ascending.
    partitions: Vec<Partition>,
}

/// How current the database is.
#[derive(Serialize, ToSchema)]
struct Fresh {
    /// Everything that came into the log before is applied; null while no owner has reported.
    #[schema(format = DateTime)]
    as_of: Option<String>,
    /// Milliseconds since then.
    staleness_ms: Option<u64>,
    /// Records that are not applied; null where an owner does not report.
    lag_records: Option<i64>,
    /// Age of the oldest of them in seconds; null where it is not known.
    lag_seconds: Option<f64>,
    /// Every read model.
    read_models: Vec<ReadModel>,
}

/// Every partition: owner, position, end, lag in records and seconds.
#[utoipa::path(
    get, path = "/v1/partitions", tag = "freshness", operation_id = "partitions", params(Waiting),
    responses(
        (status = 200, description = "Every partition", body = Partitions,
            headers(("millrace-as-of" = String), ("millrace-staleness-ms" = String))),
        Failures,
    )
)]
pub async fn list(State(query): State<Query>, uri: Uri) -> Result<Response, Error> {
    let as_of = fresh_for(&query, &uri).await?;
    let partitions = all(&query.pools.any).await?;
    Ok(json(as_of, &Partitions { partitions }))
}

/// How current the ledger and every read model are.
#[utoipa::path(
    get, path = "/v1/freshness", tag = "freshness", operation_id = "freshness", params(Waiting),
    responses(
        (status = 200, description = "How current everything is", body = Fresh,
            headers(("millrace-as-of" = String), ("millrace-staleness-ms" = String))),
        Failures,
    )
)]
pub async fn freshness(State(query): State<Query>, uri: Uri) -> Result<Response, Error> {
    let as_of = fresh_for(&query, &uri).await?;
    let partitions = all(&query.pools.any).await?;
    let seconds = partitions.iter().map(|p| p.lag_seconds);
    let body = Fresh {
        as_of: as_of.time().map(|time| time.to_string()),
        staleness_ms: as_of.staleness_ms(),
        lag_records: partitions.iter().map(|p| p.lag_records).sum(),
        lag_seconds: seconds
            .reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
            .flatten(),
        read_models: read_models(&query.pools.any).await?,
    };
    Ok(json(as_of, &body))
}
