//! What operators can do over the admin port of a ledger: the parked records.
//!
//! Until access control exists these routes answer on loopback only, and only to requests that name a
//! loopback host: a page of another site cannot reach them through a browser.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use millrace_http::Problem;
use millrace_ledger::parking::Selection;
use millrace_ledger::pipeline::outcome::Resolution;
use millrace_ledger::store::parked::{self, Listing};
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tracing::{error, info};

use crate::parking::{Ambiguous, Request, describe, list, park_reason, resolve, seqs, summary};

/// How many records a listing may show.
const LIMIT_MAX: u32 = 1_000;
const LIMIT: u32 = 100;

/// The routes, for an admin port at `address`.
pub fn router(database: PgConnectOptions, address: IpAddr) -> Router {
    let is_open = address.is_loopback();
    Router::new()
        .route("/parked", get(show_list))
        .route("/parked/{partition}/{offset}", get(show_one))
        .route("/parked/replay", post(replay))
        .route("/parked/discard", post(discard))
        .layer(middleware::from_fn(move |request, next| {
            guard(is_open, request, next)
        }))
        .with_state(Arc::new(database))
}

async fn guard(is_open: bool, request: HttpRequest, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_open || !is_loopback(host) {
        let why = "parked records are handled on a loopback admin port only, until access control exists; \
                   use `millrace parked`";
        return Problem::new(StatusCode::FORBIDDEN, "loopback_only", why).into_response();
    }
    next.run(request).await
}

/// Whether a Host header names this machine to itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Which records are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    partition: Option<i32>,
    offset: Option<i64>,
    seq: Option<i64>,
    key: Option<String>,
    key_hex: Option<String>,
    parked_for: Option<String>,
    #[serde(default)]
    all: bool,
    limit: Option<u32>,
}

/// Which of those at an offset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    seq: Option<i64>,
}

/// What is to be done with which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    partition: Option<i32>,
    offset: Option<i64>,
    seq: Option<i64>,
    key: Option<String>,
    key_hex: Option<String>,
    parked_for: Option<String>,
    /// Every open record, where nothing else is said.
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    operator: String,
    #[serde(default)]
    dry_run: bool,
}

type Database = State<Arc<PgConnectOptions>>;
type Answer = Result<Json<Value>, Problem>;

async fn show_list(
    State(database): Database,
    query: Result<Query<Listed>, QueryRejection>,
) -> Answer {
    let Query(listed) = query.map_err(|error| invalid(&error.body_text()))?;
    let key = key(listed.key, listed.key_hex)?;
    place(listed.partition, listed.offset, listed.seq)?;
    if let Some(name) = &listed.parked_for {
        park_reason(name).map_err(|why| invalid(&why).field("parked_for"))?;
    }
    let limit = listed.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(invalid(&format!("limit is 1 to {LIMIT_MAX}")).field("limit"));
    }
    let listing = Listing {
        partition: listed.partition,
        key: key.as_deref(),
        reason: listed.parked_for.as_deref(),
        log_offset: listed.offset,
        seq: listed.seq,
        all: listed.all,
        with_bytes: false,
        limit: limit.into(),
    };
    let mut connection = connect(&database).await?;
    let found = list(&mut connection, listing).await;
    found.map(Json).map_err(|error| unavailable(&error))
}

async fn show_one(
    State(database): Database,
    path: Result<Path<(i32, i64)>, PathRejection>,
    query: Result<Query<Shown>, QueryRejection>,
) -> Answer {
    let Path((partition, offset)) = path.map_err(|error| invalid(&error.body_text()))?;
    let Query(Shown { seq }) = query.map_err(|error| invalid(&error.body_text()))?;
    let listing = Listing {
        partition: Some(partition),
        log_offset: Some(offset),
        seq,
        all: true,
        with_bytes: true,
        limit: 10,
        ..Listing::default()
    };
    let mut connection = connect(&database).await?;
    let found = parked::list(&mut connection, listing)
        .await
        .map_err(|error| unavailable(&error))?;
    let record = found.first().ok_or_else(|| {
        let detail =
            format!("no record of partition {partition} at offset {offset} was ever parked");
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    })?;
    if found.len() > 1 {
        let seqs = seqs(&found);
        let detail = format!("several records were parked there: say which with ?seq={seqs}");
        return Err(Problem::new(StatusCode::CONFLICT, "ambiguous", detail).field("seq"));
    }
    Ok(Json(describe(record)))
}

async fn replay(database: Database, wanted: Result<Json<Wanted>, JsonRejection>) -> Answer {
    run(database, wanted, Resolution::Replayed).await
}

async fn discard(database: Database, wanted: Result<Json<Wanted>, JsonRejection>) -> Answer {
    run(database, wanted, Resolution::Discarded).await
}

async fn run(
    State(database): Database,
    wanted: Result<Json<Wanted>, JsonRejection>,
    resolution: Resolution,
) -> Answer {
    let Json(wanted) = wanted.map_err(|error| invalid(&error.body_text()))?;
    let request = request(wanted, resolution)?;
    let resolved = resolve(&database, &request, |_, _| {}).await;
    let resolved = resolved.map_err(|failure| {
        if let Some(ambiguous) = failure.downcast_ref::<Ambiguous>() {
            return invalid(&ambiguous.to_string()).field("seq");
        }
        error!(error = format!("{failure:#}"), "resolving parked records");
        let detail = format!("{failure:#}; what was committed stays, and it is safe to repeat");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database_unavailable",
            detail,
        )
        .retry_after(1)
    })?;
    info!(
        operator = request.operator,
        reason = request.reason,
        dry_run = request.dry_run,
        resolved = resolved.count(),
        still_parked = resolved.remaining_count,
        "parked records {}",
        resolution.as_str()
    );
    Ok(Json(summary(&resolved, request.dry_run)))
}

fn request(wanted: Wanted, resolution: Resolution) -> Result<Request, Problem> {
    let code = wanted.parked_for.as_deref().map(park_reason).transpose();
    let selection = Selection {
        key: key(wanted.key, wanted.key_hex)?,
        reason: code.map_err(|why| invalid(&why).field("parked_for"))?,
        log_offset: wanted.offset,
        seq: wanted.seq,
        also_keys: Vec::new(),
    };
    place(wanted.partition, wanted.offset, wanted.seq)?;
    let says_which = wanted.partition.is_some() || selection != Selection::default();
    if says_which == wanted.all || (wanted.all && resolution == Resolution::Discarded) {
        let which = "say which: partition, offset, key, key_hex or parked_for; to replay, or all: true alone";
        return Err(invalid(which));
    }
    let reason = match (wanted.reason, resolution) {
        (Some(reason), _) => text(&reason, "reason")?,
        (None, Resolution::Replayed) => "replayed".into(),
        (None, Resolution::Discarded) => {
            return Err(invalid("to discard needs a reason").field("reason"));
        }
    };
    Ok(Request {
        resolution,
        partition: wanted.partition,
        selection,
        reason,
        operator: text(&wanted.operator, "operator")?,
        dry_run: wanted.dry_run,
    })
}

/// A place in the log.
fn place(partition: Option<i32>, offset: Option<i64>, seq: Option<i64>) -> Result<(), Problem> {
    if partition.is_some_and(|partition| partition < 0) {
        return Err(invalid("a partition is 0 or more").field("partition"));
    }
    if offset.is_some_and(|offset| offset < 0) {
        return Err(invalid("an offset is 0 or more").field("offset"));
    }
    if (offset.is_some() || seq.is_some()) && partition.is_none() {
        return Err(invalid("an offset or seq is one of a partition").field("partition"));
    }
    Ok(())
}

fn text(text: &str, field: &'static str) -> Result<String, Problem> {
    crate::cli::reason(text).map_err(|why| invalid(&why).field(field))
}

fn key(text: Option<String>, digits: Option<String>) -> Result<Option<Vec<u8>>, Problem> {
    match (text, digits) {
        (Some(_), Some(_)) => Err(invalid("key or key_hex, not both").field("key_hex")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(digits)) => hex::decode(digits).map(Some).map_err(|_| {
            invalid("key_hex is an even number of hexadecimal digits").field("key_hex")
        }),
        (None, None) => Ok(None),
    }
}

async fn connect(database: &PgConnectOptions) -> Result<PgConnection, Problem> {
    let options = database.clone().application_name("millrace admin");
    let connected = crate::cli::connect(&options).await;
    connected.map_err(|error| unavailable(&error))
}

fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
}

fn unavailable(failure: &sqlx::Error) -> Problem {
    error!(error = %failure, "reading parked records");
    let detail = format!("the database: {failure}");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "database_unavailable",
        detail,
    )
    .retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:9465",
            "127.0.0.1:9465",
            "[::1]:9465",
            "127.1.2.3",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9465",
            "10.0.0.1:9465",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_is_resolved_must_be_said_and_a_discard_has_a_reason() {
        let parse = |json: &str, resolution| {
            let wanted: Wanted = serde_json::from_str(json).unwrap();
            request(wanted, resolution).map_err(|problem| problem.detail().to_owned())
        };
        let replayed = Resolution::Replayed;
        assert!(parse(r#"{"operator": "ann"}"#, replayed).is_err());
        assert!(parse(r#"{"operator": "ann", "all": true}"#, replayed).is_ok());
        assert!(parse(r#"{"operator": "ann", "all": true, "key": "a"}"#, replayed).is_err());
        assert!(parse(r#"{"operator": "ann", "offset": 1}"#, replayed).is_err());
        assert!(
            parse(
                r#"{"operator": "ann", "offset": -1, "partition": 0}"#,
                replayed
            )
            .is_err()
        );
        assert!(parse(r#"{"operator": "ann", "partition": -1}"#, replayed).is_err());
        assert!(parse(r#"{"operator": " ", "key": "a"}"#, replayed).is_err());
        assert!(parse(r#"{"operator": "ann", "key_hex": "6"}"#, replayed).is_err());
        let found = parse(r#"{"operator": "ann", "key_hex": "6b"}"#, replayed).unwrap();
        assert_eq!(found.selection.key.as_deref(), Some(&b"k"[..]));
        let discarded = Resolution::Discarded;
        assert!(parse(r#"{"operator": "ann", "key": "a"}"#, discarded).is_err());
        assert!(
            parse(
                r#"{"operator": "ann", "all": true, "reason": "x"}"#,
                discarded
            )
            .is_err()
        );
        assert!(
            parse(
                r#"{"operator": "ann", "key": "a", "reason": "x"}"#,
                discarded
            )
            .is_ok()
        );
    }
}
