//! `GET /transactions/{id}`: from the record to its verdict to the ledger's row.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use maud::{Markup, html};
use uuid::Uuid;

use crate::Query;
use crate::api::params::{Params, wrong};
use crate::console::page::{Failed, Page, Place};
use crate::console::parts::Column;
use crate::console::{parts, text};
use crate::store::transactions::{Record, by_id};

/// The page.
pub async fn show(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Page, Failed> {
    let id = crate::api::path(path)?;
    let id: Uuid = id
        .parse()
        .map_err(|_| wrong("invalid_id", "id", "a transaction's id is a UUID"))?;
    Params::of(&uri)?.end()?;
    let as_of = query.freshness.as_of(None).await?;
    let (records, more) = by_id(&query.pools.by_key, id).await?;
    let title = format!("Transaction {id}");
    Ok(match records.split_first() {
        Some((decisive, others)) => {
            let others = (others, more);
            Page::new(title, Place::Elsewhere, as_of, body(id, decisive, others))
        }
        None => {
            Page::new(title, Place::Elsewhere, as_of, unknown(id)).status(StatusCode::NOT_FOUND)
        }
    })
}

fn unknown(id: Uuid) -> Markup {
    html! {
        div.message {
            h1 { "Not applied" }
            p.lead { "No record of transaction " span.id { (id) } " is applied yet." }
            p.quiet { "If it was just sent it will show here in a moment. The foot of the page says as of when this is." }
            p.code { "404 transaction_not_found" }
        }
    }
}

fn body(id: Uuid, decisive: &Record, (others, more): (&[Record], bool)) -> Markup {
    html! {
        div.title {
            p.over { "Transaction" }
            h1.id { (id) }
        }
        div #transaction data-live {
            (headline(decisive))
            ol.trail {
                (record_step(decisive))
                (verdict_step(decisive))
                (ledger_step(decisive))
            }
            @if !others.is_empty() {
                section.panel {
                    h2 { "Other records with this id" }
                    p.quiet { "They were refused or parked and changed nothing above. Duplicates are only counted." }
                    (parts::scrolling("Other records with this id", &table(others)))
                    @if more { p.quiet { "There are more; the report " code { "rejections" } " has all of them." } }
                }
            }
        }
    }
}

fn headline(record: &Record) -> Markup {
    html! {
        p.headline {
            @if let (Some(amount), Some(currency)) = (record.amount, &record.currency) {
                span.large { (parts::money(amount.into(), record.exponent, currency)) }
            }
            (badge(&record.verdict))
            @if let (Some(debit), Some(credit)) = (&record.debit_account, &record.credit_account) {
                (parts::parties(debit, credit))
            }
        }
    }
}

fn badge(verdict: &str) -> Markup {
    html! { span class={ "badge " (verdict) } { (verdict) } }
}

fn record_step(record: &Record) -> Markup {
    html! {
        li.done {
            h2 { "Record" }
            p.quiet { "What came into the log." }
            dl.facts {
                div { dt { "Partition:offset" } dd.figure { (record.partition) ":" (record.offset) } }
                (fact("Kind", record.kind.as_deref()))
                (fact("Source", record.source.as_deref()))
                (fact("Reference", record.reference.as_deref()))
                @if let Some(occurred_at) = &record.occurred_at {
                    div { dt { "Occurred" } dd { (text::exact_time(occurred_at)) } }
                }
            }
            @if let Some(metadata) = &record.metadata.0 { (pairs(metadata.get())) }
        }
    }
}

fn fact(name: &str, value: Option<&str>) -> Markup {
    html! {
        @if let Some(value) = value {
            div { dt { (name) } dd { (value) } }
        }
    }
}

fn pairs(metadata: &str) -> Markup {
    let all: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(metadata).unwrap_or_default();
    html! {
        @if !all.is_empty() {
            table.pairs {
                caption { "Metadata" }
                tbody {
                    @for (name, value) in &all {
                        tr {
                            th scope="row" { (name) }
                            td { @if let Some(text) = value.as_str() { (text) } @else { (value) } }
                        }
                    }
                }
            }
        }
    }
}

fn verdict_step(record: &Record) -> Markup {
    let about = match record.verdict.as_str() {
        "posted" => "Every rule let it pass.",
        "rejected" => {
            "A rule did not let it pass. The id is bound to this verdict: a retry gets the same."
        }
        "refused" => "It is no valid transaction. The id stays free for a right one.",
        _ => "It could not be understood or applied, and waits for an operator.",
    };
    html! {
        li.done {
            h2 { "Verdict" }
            p.quiet { (about) }
            dl.facts {
                div { dt { "Verdict" } dd { (badge(&record.verdict)) } }
                @if let Some(reason) = &record.reason {
                    div { dt { "Reason" } dd { strong.bad { (text::words(reason)) } } }
                }
                (fact("Detail", record.detail.as_deref()))
                (fact("Resolution", record.resolution.as_deref()))
                div { dt { "Recorded" } dd { (text::exact_time(&record.recorded_at)) } }
            }
        }
    }
}

fn ledger_step(record: &Record) -> Markup {
    let is_posted = record.verdict == "posted";
    html! {
        li.done[is_posted].open[!is_posted] {
            h2 { "Ledger" }
            @if let (true, Some(debit), Some(credit)) = (is_posted, &record.debit_account, &record.credit_account) {
                p.quiet { "The row that both balances are summed from." }
                dl.facts {
                    div { dt { "Taken from" } dd { (parts::account(debit)) } }
                    div { dt { "Given to" } dd { (parts::account(credit)) } }
                    div { dt { "Amount" } dd { (parts::money(record.amount.unwrap_or_default().into(), record.exponent, record.currency.as_deref().unwrap_or("?"))) } }
                    div { dt { "Row" } dd.figure { "partition " (record.partition) ", number " (text::number(record.seq)) } }
                }
            } @else {
                p.quiet { "No row: no balance was changed." }
            }
        }
    }
}

fn table(records: &[Record]) -> Markup {
    html! {
        table.list.wide {
            (parts::heads(&[Column::Left("Recorded (UTC)"), Column::Left("Verdict"), Column::Left("Reason"), Column::Right("Partition:offset")]))
            tbody {
                @for record in records {
                    tr {
                        td { (text::time(&record.recorded_at)) }
                        td { (badge(&record.verdict)) }
                        td {
                            (record.reason.as_deref().map(text::words).unwrap_or_default())
                            @if let Some(detail) = &record.detail { div.detail { (detail) } }
                        }
                        td.right.figure { (record.partition) ":" (record.offset) }
                    }
                }
            }
        }
    }
}
