//! `GET /`: how the pipeline is doing.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};

use crate::Query;
use crate::api::params::Params;
use crate::console::page::{Failed, Page, Place};
use crate::console::parts::{Column, or_dash, or_missing};
use crate::console::{chart, parts, text};
use crate::database::Error;
use crate::store::accounts::{Largest, largest};
use crate::store::overview::{Interval, Totals, throughput, totals};
use crate::store::partitions::{Partition, ReadModel, all, read_models};
use crate::store::transactions::{Entry, latest};

/// How long an interval of the throughput is, seconds.
const INTERVAL_SECONDS: i32 = 5;
/// How many are shown: five minutes.
const INTERVALS: i32 = 60;
/// How many accounts and transactions are shown.
const ROWS: i64 = 10;
/// From which lag on it draws attention, seconds.
const LAG_ATTENTION_SECONDS: f64 = 5.0;

/// The page. A part that cannot be read is named; the others are shown.
pub async fn show(State(query): State<Query>, uri: Uri) -> Result<Page, Failed> {
    Params::of(&uri)?.end()?;
    let as_of = query.freshness.as_of(None).await?;
    let (pool, console) = (&query.pools.any, &query.console);
    let (partitions, models, rates, totals, largest, latest) = tokio::join!(
        all(pool),
        read_models(pool),
        console
            .throughput
            .get(throughput(pool, INTERVAL_SECONDS, INTERVALS)),
        console.totals.get(totals(pool)),
        console.largest.get(largest(pool, ROWS)),
        console.latest.get(latest(pool, ROWS)),
    );
    let partitions = partitions.map_err(Error::into_problem);
    let models = models.map_err(Error::into_problem);
    let body = html! {
        h1.hidden { "Overview" }
        div.tiles #tiles data-live {
            (or_missing(&rates, |rates| now(rates)))
            (or_missing(&partitions, |partitions| lag(partitions)))
            (or_missing(&totals, |totals| applied(totals)))
            (or_missing(&totals, |totals| conservation(totals)))
        }
        div.columns {
            section.panel {
                h2 { "Throughput" }
                div #throughput data-live {
                    (or_missing(&rates, |rates| chart::throughput(rates, INTERVAL_SECONDS, INTERVALS)))
                }
            }
            section.panel {
                h2 { "Verdicts" }
                div #verdicts data-live { (or_missing(&totals, |totals| verdicts(totals))) }
            }
        }
        div.columns {
            section.panel {
                h2 { "Largest accounts" }
                div #largest data-live { (or_missing(&largest, |all| accounts(all))) }
            }
            section.panel {
                h2 { "Latest transactions" }
                div #latest data-live { (or_missing(&latest, |all| transactions(all))) }
            }
        }
        section.panel {
            h2 { "Partitions" }
            div #partitions data-live { (or_missing(&partitions, |all| partition_table(all))) }
        }
        section.panel {
            h2 { "Read models" }
            div #models data-live { (or_missing(&models, |all| model_table(all))) }
        }
    };
    Ok(Page::new("Overview", Place::Overview, as_of, body))
}

fn tile(label: &str, mood: &'static str, value: &str, note: &Markup) -> Markup {
    html! {
        div.tile {
            div.label { (label) }
            div class={ "value " (mood) } { (value) }
            div.note { (note) }
        }
    }
}

fn now(rates: &[Interval]) -> Markup {
    let of = |ago: i32| rates.iter().find(|interval| interval.ago == ago);
    let last = of(0).map_or(0, |interval| interval.records);
    let all: i64 = rates.iter().map(|interval| interval.records).sum();
    let mean = all / i64::from(INTERVAL_SECONDS * INTERVALS);
    tile(
        "Throughput",
        "",
        &format!("{}/s", text::number(last / i64::from(INTERVAL_SECONDS))),
        &html! { (text::number(mean)) "/s over " (INTERVAL_SECONDS * INTERVALS / 60) " minutes" },
    )
}

fn lag(partitions: &[Partition]) -> Markup {
    let records: i64 = partitions.iter().filter_map(|p| p.lag_records).sum();
    let silent = partitions
        .iter()
        .filter(|p| p.lag_seconds.is_none())
        .count();
    let seconds = partitions.iter().filter_map(|p| p.lag_seconds);
    let longest = seconds.reduce(f64::max);
    let (mood, value) = match longest {
        _ if partitions.is_empty() => ("", "no partitions yet".into()),
        Some(seconds) if silent == 0 && seconds < LAG_ATTENTION_SECONDS => {
            ("good", text::age(seconds))
        }
        Some(seconds) => ("warn", text::age(seconds)),
        None => ("warn", "unknown".into()),
    };
    let note = html! {
        (text::number(records)) " records"
        @if silent > 0 { ", " strong { (silent) " partitions without an owner's report" } }
    };
    tile("Lag", mood, &value, &note)
}

fn applied(totals: &Totals) -> Markup {
    let note = html! { (text::number(totals.posted.0)) " posted" };
    tile(
        "Records applied",
        "",
        &text::number(totals.records.0),
        &note,
    )
}

fn conservation(totals: &Totals) -> Markup {
    let (mood, value) = if totals.holds {
        ("good", "Holds")
    } else {
        ("bad", "Does not hold")
    };
    let note = html! {
        (text::number(totals.offsets.0)) " offsets = " (text::number(totals.records.0)) " records + "
        (text::number(totals.skipped.0)) " without a record"
    };
    tile("Conservation", mood, value, &note)
}

fn verdicts(totals: &Totals) -> Markup {
    let all = [
        ("posted", "Posted", totals.posted, None),
        ("duplicate", "Duplicate", totals.duplicate, None),
        ("rejected", "Rejected", totals.rejected, Some("/rejections")),
        ("parked", "Parked", totals.parked, Some("/parked")),
        (
            "discarded",
            "Discarded",
            totals.discarded,
            Some("/parked?open=false"),
        ),
    ];
    let shares = all.map(|(class, _, count, _)| (class, count.0));
    html! {
        (chart::shares("Shares of the verdicts; the list has the counts", &shares))
        dl.legend {
            @for (class, name, count, href) in all {
                div {
                    dt {
                        span class={ "dot " (class) } {}
                        @if let Some(href) = href { a href=(href) { (name) } } @else { (name) }
                    }
                    dd.figure { (text::number(count.0)) }
                }
            }
        }
        p.quiet { "Every record has exactly one. A duplicate is a safe retry: it was counted once." }
    }
}

fn accounts(all: &[Largest]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "No account has a balance yet." } };
    }
    html! {
        table.list {
            (parts::heads(&[Column::Left("Account"), Column::Right("Balance")]))
            tbody {
                @for one in all {
                    tr {
                        td { (parts::account(&one.account)) }
                        td.right { (parts::money(one.balance.0, one.exponent, &one.currency)) }
                    }
                }
            }
        }
    }
}

fn transactions(all: &[Entry]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "Nothing is posted yet." } };
    }
    html! {
        table.list {
            (parts::heads(&[Column::Left("Posted (UTC)"), Column::Left("From, to"), Column::Right("Amount")]))
            tbody {
                @for one in all {
                    tr {
                        td { a href={ "/transactions/" (one.id) } { (text::time_of_day(&one.recorded_at)) } }
                        td { (parts::parties(&one.debit_account, &one.credit_account)) }
                        td.right { (parts::money(one.amount.into(), one.exponent, &one.currency)) }
                    }
                }
            }
        }
    }
}

fn partition_table(all: &[Partition]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "No partition was served yet: start " code { "millrace ledger" } "." } };
    }
    parts::scrolling(
        "Partitions",
        &html! {
            table.list.wide {
                (parts::heads(&[Column::Left("Partition"), Column::Left("State"), Column::Right("Lag"), Column::Right("Records behind"), Column::Right("Position"), Column::Right("Log end"), Column::Left("Owner")]))
                tbody { @for one in all { (partition(one)) } }
            }
        },
    )
}

fn partition(one: &Partition) -> Markup {
    let state = one.state.as_deref().unwrap_or("unknown");
    let mood = match one.lag_seconds {
        Some(seconds) if seconds < LAG_ATTENTION_SECONDS => "good",
        _ => "warn",
    };
    let number = |value: Option<i64>| or_dash(value.map(|value| html! { (text::number(value)) }));
    let detail = one.detail.as_deref().filter(|detail| !detail.is_empty());
    html! {
        tr {
            th.figure scope="row" { (one.partition) }
            td {
                span class={ "dot " (mood) } {}
                (text::words(state))
                @if let Some(detail) = detail { div.detail { (detail) } }
            }
            td.right.figure { (or_dash(one.lag_seconds.map(|seconds| html! { (text::age(seconds)) }))) }
            td.right.figure { (number(one.lag_records)) }
            td.right.figure { (text::number(one.position)) }
            td.right.figure { (number(one.end)) }
            td.id { (or_dash(one.owner.as_deref().map(|owner| html! { (owner) }))) }
        }
    }
}

fn model_table(all: &[ReadModel]) -> Markup {
    if all.is_empty() {
        return html! { p.empty { "No read model is installed: run " code { "millrace migrate" } "." } };
    }
    html! {
        table.list {
            (parts::heads(&[Column::Left("Model"), Column::Left("Mode"), Column::Right("Behind")]))
            tbody {
                @for one in all {
                    tr {
                        th scope="row" { a href={ "/v1/reports/" (text::encoded(&one.model)) } { (text::words(&one.model)) } }
                        td { (one.mode) }
                        td.right.figure {
                            (text::age(one.lag_seconds))
                            @if one.failed_partitions > 0 {
                                div.bad { (one.failed_partitions) " partitions failed" }
                            }
                        }
                    }
                }
            }
        }
    }
}
