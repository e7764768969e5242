//! `GET /parked`: records that wait for an operator, byte for byte.

use axum::extract::State;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::Query;
use crate::api::params::{Params, wrong};
use crate::console::page::{Failed, Page, Place};
use crate::console::parts::{Cells, or_dash, or_missing};
use crate::console::rejections::filter;
use crate::console::{bytes, parts, text};
use crate::reports::catalog::{Filter, Report, report};
use crate::reports::fetch;
use crate::store::overview::parked_by_reason;

/// How many are on a page: each may come with a MiB.
const ROWS_MAX: u32 = 50;

/// The page.
pub async fn show(State(query): State<Query>, uri: Uri) -> Result<Page, Failed> {
    let report = report("parked").expect("the catalog has it");
    let mut params = Params::of(&uri)?;
    let is_open = is_open(&mut params)?;
    let reason = filter(report, "reason", &mut params)?;
    let cursor = params.take("cursor");
    params.end()?;
    let mut filters = vec![(named(report, "open"), is_open.to_string())];
    filters.extend(reason.clone());
    let as_of = query.freshness.as_of(None).await?;
    let (page, counts) = tokio::join!(
        fetch(
            &query.pools.any,
            report,
            &filters,
            cursor.as_deref(),
            ROWS_MAX
        ),
        query.console.parked.get(parked_by_reason(&query.pools.any)),
    );
    let page = page?;
    let reason = reason.map(|(_, reason)| reason);
    let rows: Vec<_> = page.rows.iter().map(|row| Cells(report, row)).collect();
    let body = html! {
        div.title {
            h1 { "Parked" }
            p.quiet { "Records that could not be understood or applied. Each holds back later records of its own key only, until an operator replays or discards it." }
        }
        (tabs(is_open))
        @if is_open {
            div #by-reason data-live {
                (or_missing(&counts, |all| parts::reasons("Filter by reason", "/parked", reason.as_deref(), all)))
            }
        }
        div #rows data-live {
            @if rows.is_empty() {
                div.empty {
                    p.lead { @if is_open { "Nothing waits for an operator." } @else { "Nothing was replayed or discarded yet." } }
                }
            }
            @for row in &rows { (record(*row)) }
        }
        (parts::next_page(page.next.as_deref(), |cursor| {
            let reason = reason.as_deref().map(text::encoded).map(|reason| format!("&reason={reason}"));
            format!("/parked?open={is_open}{}&cursor={cursor}", reason.unwrap_or_default())
        }))
    };
    Ok(Page::new("Parked", Place::Parked, as_of, body))
}

fn is_open(params: &mut Params) -> Result<bool, Failed> {
    match params.take("open").as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(wrong("invalid_parameter", "open", "open is true or false").into()),
    }
}

fn named<'a>(report: &'a Report, name: &str) -> &'a Filter {
    let mut filters = report.filters.iter();
    let filter = filters.find(|filter| filter.name == name);
    filter.expect("the catalog has it")
}

fn tabs(is_open: bool) -> Markup {
    html! {
        nav.tabs aria-label="Open or resolved" {
            ul {
                li { a href="/parked" aria-current=[is_open.then_some("true")] { "Open" } }
                li { a href="/parked?open=false" aria-current=[(!is_open).then_some("true")] { "Resolved" } }
            }
        }
    }
}

fn record(row: Cells) -> Markup {
    let place = format!("{}-{}", row.text("partition"), row.text("seq"));
    let value = row.get("bytes").map(|text| STANDARD.decode(text).ok());
    let headers = row
        .get("headers")
        .and_then(|text| STANDARD.decode(text).ok());
    let headers = bytes::headers(&headers.unwrap_or_default());
    html! {
        article.card id={ "parked-" (place) } {
            h2 { (text::words(row.text("reason"))) }
            @if !row.text("detail").is_empty() { p.detail { (row.text("detail")) } }
            dl.facts {
                div { dt { "Key" } dd.id { (or_dash(row.get("key_text").map(|key| html! { (key) }))) } }
                div { dt { "Partition:offset" } dd.figure { (row.text("partition")) ":" (row.text("log_offset")) } }
                div { dt { "Parked (UTC)" } dd { (text::time(row.text("parked_at"))) } }
                @if let Some(id) = row.get("id") { div.broad { dt { "Transaction" } dd { (parts::transaction(id)) } } }
                @if let Some(resolution) = row.get("resolution") {
                    div {
                        dt { (text::words(resolution)) " by" }
                        dd { (row.text("operator")) ", " (text::time(row.text("resolved_at"))) }
                    }
                    div { dt { "Because" } dd { (row.text("resolution_reason")) } }
                }
            }
            details id={ "bytes-" (place) } {
                summary { (summary(value.as_ref())) }
                @if let Some(Some(value)) = &value { (dump(value, &place)) }
                @if !headers.is_empty() { (header_table(&headers)) }
            }
        }
    }
}

fn summary(value: Option<&Option<Vec<u8>>>) -> String {
    match value {
        Some(Some(value)) if value.is_empty() => "Headers; the value is empty".into(),
        Some(Some(value)) => {
            let unit = if value.len() == 1 { "byte" } else { "bytes" };
            format!("{} {unit} and headers", text::number(value.len() as u64))
        }
        _ => "Headers; there is no value".into(),
    }
}

fn dump(value: &[u8], place: &str) -> Markup {
    html! {
        pre.dump tabindex="0" role="region" aria-label={ "Bytes of record " (place) } { (bytes::preview(value)) }
        @if value.len() > bytes::SHOWN_MAX {
            p.quiet { "The first " (bytes::SHOWN_MAX) " bytes; the report " code { "parked" } " has all of them." }
        }
    }
}

fn header_table(headers: &[(String, Option<String>)]) -> Markup {
    html! {
        table.pairs {
            caption { "Headers" }
            tbody {
                @for (name, value) in headers {
                    tr {
                        th scope="row" { (name) }
                        td { (or_dash(value.as_deref().map(|value| html! { (value) }))) }
                    }
                }
            }
        }
    }
}
