//! The routes under `/v1`, their document.
//!
//! | module | holds |
//! |---|---|
//! | [`params`] | parameters: each checked, unknown ones refused |
//! | [`answer`] | answers with their freshness |
//! | [`document`] | the reports' part of the document |

pub(crate) mod accounts;
mod answer;
mod document;
pub(crate) mod params;
mod partitions;
mod reports;
mod transactions;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use millrace_http::Problem;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Query;
use crate::api::params::wrong;

/// What became of a record.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// In the ledger; balances moved.
    Posted,
    /// Rejected by a business rule; the id keeps this verdict.
    Rejected,
    /// Not a transaction, or the id is another's; nothing is bound.
    Refused,
    /// Waits for an operator.
    Parked,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Millrace query",
        description = "Read models of the ledger. Every answer says how fresh it is: `Millrace-As-Of` (everything \
                       that came into the log before is in it) and `Millrace-Staleness-Ms`; both are `unknown` \
                       while no partition's owner has reported. Amounts are whole numbers in minor units of any \
                       size, beside the currency's exponent. Errors are `application/problem+json` with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Verdict, Problem))
)]
struct Base;

fn routes() -> OpenApiRouter<Query> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(transactions::show))
        .routes(routes!(accounts::show))
        .routes(routes!(accounts::transactions))
        .routes(routes!(partitions::list))
        .routes(routes!(partitions::freshness))
}

/// The routes and `/openapi.json`.
pub fn router(query: Query) -> Router {
    let (router, mut document) = routes().split_for_parts();
    document::add_reports(&mut document);
    router
        .route("/v1/reports/{name}", get(reports::show))
        .route("/openapi.json", get(async move || Json(document)))
        .with_state(query)
}

/// A part of the path, which may not be percent-encoded text.
pub(crate) fn path(
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<String, Problem> {
    path.map(|Path(text)| text).map_err(|_| {
        wrong(
            "invalid_path",
            "path",
            "the path is not percent-encoded UTF-8",
        )
    })
}
