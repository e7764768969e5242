//! `GET /v1/transactions/{id}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use millrace_http::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Query;
use crate::api::answer::{Failures, fresh_for, json, stamped};
use crate::api::params::{Waiting, wrong};
use crate::database::Error;
use crate::store::transactions::{Record, by_id};

/// What became of a transaction.
#[derive(Serialize, ToSchema)]
struct Transaction {
    #[serde(flatten)]
    decisive: Record,
    /// Further records that carried this id and were refused or parked; duplicates are only counted.
    other_records: Vec<Record>,
    /// Whether there are more of them than are shown; the report `rejections` has all.
    more_records: bool,
}

/// What became of a transaction: verdict, reason, place in the log, times.
#[utoipa::path(
    get, path = "/v1/transactions/{id}", tag = "transactions", operation_id = "transaction",
    params(("id" = Uuid, Path, description = "The transaction's id"), Waiting),
    responses(
        (status = 200, description = "Its verdict", body = Transaction,
            headers(("millrace-as-of" = String), ("millrace-staleness-ms" = String))),
        (status = 404, description = "No record of this id is applied, as of the time in the headers", body = Problem,
            content_type = "application/problem+json"),
        Failures,
    )
)]
pub async fn show(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Error> {
    let text = super::path(path)?;
    let id = text
        .parse::<Uuid>()
        .map_err(|_| wrong("invalid_id", "id", "a transaction's id is a UUID"))?;
    let as_of = fresh_for(&query, &uri).await?;
    let (records, more_records) = by_id(&query.pools.by_key, id).await?;
    let mut records = records.into_iter();
    Ok(match records.next() {
        Some(decisive) => json(
            as_of,
            &Transaction {
                decisive,
                other_records: records.collect(),
                more_records,
            },
        ),
        None => stamped(
            as_of,
            Problem::new(
                StatusCode::NOT_FOUND,
                "transaction_not_found",
                format!("no record with id {id} is applied yet; at_least waits for the place of a receipt"),
            )
            .field("id"),
        ),
    })
}
