//! `GET /rejections`: by reason, and the latest.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};

use crate::Query;
use crate::api::params::{LIMIT_DEFAULT, Params, wrong};
use crate::console::page::{Failed, Page, Place};
use crate::console::parts::{Cells, Column, or_dash, or_missing};
use crate::console::{parts, text};
use crate::reports::catalog::{Filter, Report, report};
use crate::reports::fetch;
use crate::store::overview::rejections_by_reason;

/// The page.
pub async fn show(State(query): State<Query>, uri: Uri) -> Result<Page, Failed> {
    let report = report("rejections").expect("the catalog has it");
    let mut params = Params::of(&uri)?;
    let filters: Vec<_> = filter(report, "reason", &mut params)?.into_iter().collect();
    let cursor = params.take("cursor");
    params.end()?;
    let as_of = query.freshness.as_of(None).await?;
    let (page, counts) = tokio::join!(
        fetch(
            &query.pools.any,
            report,
            &filters,
            cursor.as_deref(),
            LIMIT_DEFAULT
        ),
        query
            .console
            .rejections
            .get(rejections_by_reason(&query.pools.any)),
    );
    let page = page?;
    let reason = filters.first().map(|(_, reason)| reason.as_str());
    let rows: Vec<_> = page.rows.iter().map(|row| Cells(report, row)).collect();
    let body = html! {
        div.title {
            h1 { "Rejections" }
            p.quiet { "Records that were rejected by a rule, or refused because they are no valid transaction. Nothing of them was posted." }
        }
        div #by-reason data-live {
            (or_missing(&counts, |all| parts::reasons("Filter by reason", "/rejections", reason, all)))
        }
        @if rows.is_empty() {
            div.empty #rows data-live {
                p.lead { "Nothing is rejected" @if let Some(reason) = reason { " for " (text::words(reason)) } "." }
            }
        } @else {
            (parts::scrolling("Rejections", &table(&rows)))
            (parts::next_page(page.next.as_deref(), |cursor| match reason {
                Some(reason) => format!("/rejections?reason={}&cursor={cursor}", text::encoded(reason)),
                None => format!("/rejections?cursor={cursor}"),
            }))
        }
    };
    Ok(Page::new("Rejections", Place::Rejections, as_of, body))
}

/// A filter of the report, where the request has it, with its checked value.
pub fn filter<'a>(
    report: &'a Report,
    name: &str,
    params: &mut Params,
) -> Result<Option<(&'a Filter, String)>, Failed> {
    let Some(text) = params.take(name) else {
        return Ok(None);
    };
    let mut filters = report.filters.iter();
    let filter = filters.find(|filter| filter.name == name);
    let filter = filter.expect("the catalog has it");
    match filter.value.check(&text) {
        Ok(value) => Ok(Some((filter, value))),
        Err(right) => Err(wrong("invalid_parameter", name, format!("{name} is {right}")).into()),
    }
}

fn table(rows: &[Cells]) -> Markup {
    html! {
        table.list.wide #rows data-live {
            caption.hidden { "Rejections, the latest first" }
            (parts::heads(&[Column::Left("Recorded (UTC)"), Column::Left("Reason"), Column::Left("Transaction"), Column::Left("From"), Column::Left("To"), Column::Right("Amount"), Column::Right("Partition:offset")]))
            tbody { @for row in rows { (line(*row)) } }
        }
    }
}

fn line(row: Cells) -> Markup {
    html! {
        tr {
            td { (text::time(row.text("recorded_at"))) }
            td {
                strong.bad { (text::words(row.text("reason"))) }
                @if let Some(detail) = row.get("detail") { div.detail { (detail) } }
            }
            td { (or_dash(row.get("id").map(parts::transaction))) }
            td { (or_dash(row.get("debit_account").map(parts::account))) }
            td { (or_dash(row.get("credit_account").map(parts::account))) }
            td.right { (or_dash(row.money())) }
            td.right.figure { (row.text("partition")) ":" (row.text("log_offset")) }
        }
    }
}
