//! `GET /v1/reports/{name}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use millrace_http::Problem;
use serde::Serialize;

use crate::Query;
use crate::api::answer::{fresh, json, typed};
use crate::api::params::{Params, wrong};
use crate::database::Error;
use crate::reports::catalog::report;
use crate::reports::format::{Object, csv, ndjson};
use crate::reports::{REPORTS, Report, fetch};

/// The most rows in one answer.
pub const ROWS_MAX: u32 = 10_000;

/// Where CSV and NDJSON say how the next page begins.
const NEXT: HeaderName = HeaderName::from_static("millrace-next-cursor");

#[derive(Serialize)]
struct Rows<'a> {
    rows: Vec<Object<'a>>,
    next: Option<String>,
}

enum Format {
    Json,
    Ndjson,
    Csv,
}

/// A page of a report.
pub async fn show(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Error> {
    let name = super::path(path)?;
    let report = report(&name).ok_or_else(|| unknown(&name))?;
    let mut params = Params::of(&uri)?;
    let waiting = params.waiting()?;
    let limit = params.limit(ROWS_MAX)?;
    let cursor = params.take("cursor");
    let format = format(params.take("format").as_deref())?;
    let mut filters = Vec::new();
    for filter in report.filters {
        if let Some(text) = params.take(filter.name) {
            let value = filter.value.check(&text).map_err(|right| {
                wrong(
                    "invalid_parameter",
                    filter.name,
                    format!("{} is {right}", filter.name),
                )
            })?;
            filters.push((filter, value));
        }
    }
    params.end()?;
    let as_of = fresh(&query, waiting, report.model).await?;
    let page = fetch(&query.pools.any, report, &filters, cursor.as_deref(), limit).await?;
    let bytes = match format {
        Format::Json => {
            let rows = page.rows.iter().map(|row| Object(report, row)).collect();
            return Ok(json(
                as_of,
                &Rows {
                    rows,
                    next: page.next,
                },
            ));
        }
        Format::Ndjson => ndjson(report, &page.rows).map_err(|error| error.to_string()),
        Format::Csv => csv(report, &page.rows).map_err(|error| error.to_string()),
    };
    let content_type = match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        _ => "application/x-ndjson",
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(error, report = report.name, "rows cannot be shown");
            return Ok(Problem::internal().into_response());
        }
    };
    let mut response = typed(as_of, content_type, bytes);
    if let Some(next) = page.next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(NEXT, next);
    }
    Ok(response)
}

fn format(text: Option<&str>) -> Result<Format, Problem> {
    match text {
        None | Some("json") => Ok(Format::Json),
        Some("csv") => Ok(Format::Csv),
        Some("ndjson") => Ok(Format::Ndjson),
        Some(_) => Err(wrong(
            "invalid_parameter",
            "format",
            "format is json, csv or ndjson",
        )),
    }
}

fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let names: Vec<_> = REPORTS.iter().map(|Report { name, .. }| *name).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "report_not_found",
        format!(
            "there is no report {shown:?}; there are {}",
            names.join(", ")
        ),
    )
    .field("name")
}
