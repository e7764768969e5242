//! Answers with their freshness.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use millrace_http::Problem;
use serde::Serialize;
use utoipa::IntoResponses;

use crate::Query;
use crate::api::params::Params;
use crate::database::Error;
use crate::freshness::{AsOf, AtLeast};

/// How every question can fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes the answers; they are made of problems")]
pub enum Failures {
    /// A wrong parameter
    #[response(status = 400, content_type = "application/problem+json")]
    WrongParameter(Problem),
    /// The database does not answer
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// `at_least` was not reached in time
    #[response(status = 504, content_type = "application/problem+json")]
    NotYetApplied(Problem),
}

/// [`fresh`] for a question without parameters of its own.
pub async fn fresh_for(query: &Query, uri: &Uri) -> Result<AsOf, Error> {
    let mut params = Params::of(uri)?;
    let waiting = params.waiting()?;
    params.end()?;
    fresh(query, waiting, None).await
}

/// Waits if that was asked for, then says how fresh an answer is that is read from now on.
pub async fn fresh(
    query: &Query,
    waiting: Option<(AtLeast, Duration)>,
    model: Option<&str>,
) -> Result<AsOf, Error> {
    if let Some((at_least, wait)) = waiting {
        query.freshness.wait_for(&at_least, model, wait).await?;
    }
    query.freshness.as_of(model).await
}

/// The body as JSON, stamped. What was true a moment ago is not kept by anybody.
pub fn json(as_of: AsOf, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => typed(as_of, "application/json", bytes),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be shown as JSON");
            Problem::internal().into_response()
        }
    }
}

/// The bytes with their type, stamped.
pub fn typed(as_of: AsOf, content_type: &'static str, bytes: Vec<u8>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    as_of.stamp(&mut headers);
    (headers, bytes).into_response()
}

/// An error that is as fresh as an answer.
pub fn stamped(as_of: AsOf, error: impl IntoResponse) -> Response {
    let mut response = error.into_response();
    as_of.stamp(response.headers_mut());
    response
}
