//! Results and problems as HTTP answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millrace_http::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::collector::{ItemResult, Results};
use crate::item::{MALFORMED_JSON, Rejection};

/// The pause after which Kafka is tried again anyway.
const UNAVAILABLE_RETRY_S: u32 = 2;
const THROTTLED_RETRY_S: u32 = 1;

/// What became of a request with one object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// The transaction's id.
    id: Uuid,
    /// The Kafka partition.
    partition: i32,
    /// The Kafka offset. Negative when the broker had the record already and no longer knows where.
    offset: i64,
    #[schema(inline)]
    status: AcceptedStatus,
}

/// Always `accepted`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AcceptedStatus {
    /// All in-sync replicas have it.
    Accepted,
}

/// What became of the items of an array or of NDJSON.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Batch {
    /// How many are in the log.
    accepted: usize,
    /// How many are no transactions.
    rejected: usize,
    /// One for each item, in the order of the request.
    results: Vec<ItemResult>,
}

/// An answer that is no problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// To one object.
    One(Accepted),
    /// To an array or to NDJSON.
    Batch(Batch),
}

impl Answer {
    /// The answer to one object.
    pub(crate) fn one(results: Results) -> Result<Self, Problem> {
        match results.items.into_iter().next() {
            Some(ItemResult::Accepted {
                id,
                partition,
                offset,
                ..
            }) => Ok(Self::One(Accepted {
                id,
                partition,
                offset,
                status: AcceptedStatus::Accepted,
            })),
            Some(ItemResult::Rejected { code, detail, .. }) => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail))
            }
            Some(ItemResult::Unacknowledged { .. }) | None => Err(unavailable()),
        }
    }

    /// The answer to a batch.
    pub(crate) fn batch(results: Results) -> Result<Self, Problem> {
        if results.unacknowledged() > 0 {
            return Err(with_results(unavailable(), &results));
        }
        match (results.accepted, results.rejected) {
            (0, 0) => Err(empty_batch()),
            (0, _) => Err(with_results(no_valid_item(), &results)),
            (accepted, rejected) => Ok(Self::Batch(Batch {
                accepted,
                rejected,
                results: results.items,
            })),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Batch(batch) if batch.rejected > 0 => StatusCode::MULTI_STATUS,
            _ => StatusCode::ACCEPTED,
        };
        let body = serde_json::to_vec(&self).expect("results have only strings and numbers");
        let json = HeaderValue::from_static("application/json");
        (status, [(header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// Adds what became of the items so far.
pub(crate) fn with_results(problem: Problem, results: &Results) -> Problem {
    let items = serde_json::to_value(&results.items);
    problem
        .with("accepted", results.accepted)
        .with("rejected", results.rejected)
        .with(
            "results",
            items.expect("results have only strings and numbers"),
        )
}

/// A body that is no transaction and no array.
pub(crate) fn refused(rejection: Rejection) -> Problem {
    let status = if rejection.code == MALFORMED_JSON {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let mut problem = Problem::new(status, rejection.code, rejection.detail);
    if let Some(field) = rejection.field {
        problem = problem.field(field);
    }
    if let Some(position) = rejection.position {
        problem = problem
            .with("line", position.line)
            .with("column", position.column);
    }
    match rejection.id {
        None => problem,
        Some(id) => problem.with("id", id.to_string()),
    }
}

pub(crate) fn unavailable() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "kafka_unavailable",
        "kafka has not acknowledged it; sending the same request again is safe, because a \
         transaction that comes twice is posted once",
    )
    .retry_after(UNAVAILABLE_RETRY_S)
}

pub(crate) fn queue_full() -> Problem {
    let detail = "too many transactions wait for kafka; nothing of this request was published";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail).retry_after(THROTTLED_RETRY_S)
}

pub(crate) fn busy() -> Problem {
    let detail = "the bodies of all requests take too much memory; send it again";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(THROTTLED_RETRY_S)
}

pub(crate) fn unsupported(what: &str) -> Problem {
    let detail =
        format!("{what} cannot be read; send application/json or application/x-ndjson, unencoded");
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        detail,
    )
}

pub(crate) fn invalid_key() -> Problem {
    let detail = "the header Idempotency-Key is not one value of 1 to 255 visible ASCII characters";
    Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail)
}

pub(crate) fn key_not_allowed() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "idempotency_key_not_allowed",
        "an Idempotency-Key names one transaction: give each item of a batch an id of its own",
    )
}

pub(crate) fn body_too_large(bytes_max: usize) -> Problem {
    let detail = format!(
        "the body is larger than {bytes_max} bytes: send less at once, or many as application/x-ndjson"
    );
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

pub(crate) fn line_too_large(line: usize, bytes_max: usize) -> Problem {
    let detail =
        format!("line {line} is larger than {bytes_max} bytes; neither it nor the rest was read");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

pub(crate) fn too_many_items(items_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_many_items",
        format!("a request has at most {items_max} items; send the rest separately"),
    )
}

pub(crate) fn body_timeout() -> Problem {
    let detail = "the body did not arrive in time";
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
}

pub(crate) fn body_incomplete(error: &axum::Error) -> Problem {
    let detail = format!("the body ended early: {error}");
    Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
}

pub(crate) fn empty_batch() -> Problem {
    let detail = "there is no transaction in the body";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "empty_batch", detail)
}

fn no_valid_item() -> Problem {
    let detail = "no item is a valid transaction; results says why";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_valid_item", detail)
}
