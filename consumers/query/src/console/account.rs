//! `GET /accounts/{account}`: balances, over time, and transactions.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use maud::{Markup, html};
use millrace_http::Problem;

use crate::Query;
use crate::api::accounts::account_of;
use crate::api::params::{Params, wrong};
use crate::console::page::{Failed, Page, Place};
use crate::console::parts::{Column, or_dash};
use crate::console::{chart, parts, text};
use crate::database::Error;
use crate::store::accounts::{Balance, POINTS_MAX, Point, balances, by_day};
use crate::store::threads::{by_transaction, of_account};
use crate::store::transactions::Entry;

/// How many transactions are on a page.
const ROWS: u32 = 50;
/// From how many days on the chart shows days unless asked for transactions.
const DAYS_MIN: usize = 3;

/// What the points of the chart are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Day,
    Transaction,
}

/// What is asked for.
struct Asked {
    account: String,
    currency: Option<String>,
    by: Option<By>,
    cursor: Option<String>,
}

/// The page.
pub async fn show(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Page, Failed> {
    let asked = asked(account_of(path)?, &uri)?;
    let as_of = query.freshness.as_of(None).await?;
    let balances = balances(&query.pools.by_key, &asked.account).await?;
    let title = format!("Account {}", asked.account);
    // Where most happens.
    let Some(first) = balances.iter().max_by_key(|b| b.transactions) else {
        let body = unknown(&asked.account);
        return Ok(Page::new(title, Place::Elsewhere, as_of, body).status(StatusCode::NOT_FOUND));
    };
    let currency = asked.currency.as_ref();
    let chosen = currency.map_or(Some(first), |currency| {
        balances
            .iter()
            .find(|balance| balance.currency == *currency)
    });
    let chosen = chosen.ok_or_else(|| {
        let currencies: Vec<_> = balances.iter().map(|b| b.currency.as_str()).collect();
        let detail = format!("the account has balances in {}", currencies.join(", "));
        wrong("invalid_parameter", "currency", detail)
    })?;
    let (curve, entries) = tokio::join!(
        curve(&query, &asked, &chosen.currency),
        of_account(
            &query.pools.by_key,
            &asked.account,
            asked.cursor.as_deref(),
            ROWS
        ),
    );
    let (entries, next) = entries?;
    let body = html! {
        div.title {
            p.over { "Account" }
            h1.id { (asked.account) }
            @if asked.account.starts_with("external:") {
                p.quiet { "The outside world: what came from there is below zero here." }
            }
        }
        div.tiles #balances data-live {
            @for balance in &balances { (tile(&asked.account, balance, balance.currency == chosen.currency)) }
        }
        section.panel {
            h2 { "Balance in " (chosen.currency) " over time" }
            (drawing(&asked.account, chosen, curve.map_err(Error::into_problem)))
        }
        section.panel {
            h2 { "Transactions" }
            div #entries data-live[asked.cursor.is_none()] {
                (parts::scrolling("Transactions", &table(&asked.account, &entries)))
                (parts::next_page(next.as_deref(), |cursor| {
                    format!("{}?currency={}&cursor={cursor}", text::account_path(&asked.account), chosen.currency)
                }))
            }
        }
    };
    Ok(Page::new(title, Place::Elsewhere, as_of, body))
}

fn asked(account: String, uri: &Uri) -> Result<Asked, Problem> {
    let mut params = Params::of(uri)?;
    let by = match params.take("by").as_deref() {
        None => None,
        Some("day") => Some(By::Day),
        Some("transaction") => Some(By::Transaction),
        Some(_) => {
            return Err(wrong("invalid_parameter", "by", "by is day or transaction"));
        }
    };
    let asked = Asked {
        account,
        currency: params.take("currency"),
        by,
        cursor: params.take("cursor"),
    };
    params.end()?;
    Ok(asked)
}

/// By day where there are days to tell apart, else by transaction.
async fn curve(query: &Query, asked: &Asked, currency: &str) -> Result<(By, Vec<Point>), Error> {
    let (pool, account) = (&query.pools.any, &asked.account);
    if asked.by != Some(By::Transaction) {
        let days = by_day(pool, account, currency).await?;
        if asked.by.is_some() || days.len() >= DAYS_MIN {
            return Ok((By::Day, days));
        }
    }
    Ok((
        By::Transaction,
        by_transaction(pool, account, currency).await?,
    ))
}

fn unknown(account: &str) -> Markup {
    html! {
        div.message {
            h1 { "No such account yet" }
            p.lead { "Nothing of account " span.id { (account) } " is posted." }
            p.quiet { "An account begins with the first transaction that is posted to it. The foot of the page says as of when this is." }
            p.code { "404 account_not_found" }
        }
    }
}

fn tile(account: &str, balance: &Balance, is_chosen: bool) -> Markup {
    let amount = |minor| parts::money(minor, balance.exponent, &balance.currency);
    let href = format!(
        "{}?currency={}",
        text::account_path(account),
        text::encoded(&balance.currency)
    );
    html! {
        div.tile {
            div.label {
                a href=(href) aria-current=[is_chosen.then_some("true")] { "Balance in " (balance.currency) }
            }
            div.value.bad[balance.balance.0 < 0] { (amount(balance.balance.0)) }
            dl.note {
                div { dt { "In" } dd { (amount(balance.credits.0)) } }
                div { dt { "Out" } dd { (amount(balance.debits.0)) } }
                div { dt { "Transactions" } dd.figure { (text::number(balance.transactions)) } }
                div { dt { "Last" } dd { (text::time(&balance.last_occurred_at)) } }
            }
        }
    }
}

fn drawing(account: &str, balance: &Balance, curve: Result<(By, Vec<Point>), Problem>) -> Markup {
    let (by, points) = match curve {
        Ok(curve) => curve,
        Err(problem) => return html! { div #curve data-live { (parts::missing(&problem)) } },
    };
    let label = format!("Balance of {account} in {} over time", balance.currency);
    let href = |by| {
        let path = text::account_path(account);
        format!(
            "{path}?currency={}&by={by}",
            text::encoded(&balance.currency)
        )
    };
    let tab = |name, title: &str, of| {
        html! { li { a href=(href(name)) aria-current=[(by == of).then_some("true")] { (title) } } }
    };
    html! {
        nav.tabs aria-label="Points of the chart" {
            ul {
                (tab("day", "By day", By::Day))
                (tab("transaction", "By transaction", By::Transaction))
            }
        }
        div #curve data-live {
            @match chart::balance(&points, balance.exponent, &label) {
                Some(drawn) => {
                    (drawn)
                    p.quiet { (about(by, points.len())) }
                }
                None => p.empty { "No day is folded yet: the background read model is a moment behind." }
            }
        }
    }
}

fn about(by: By, count: usize) -> String {
    let is_cut = i64::try_from(count).is_ok_and(|count| count >= POINTS_MAX);
    let last = if is_cut { "the last " } else { "" };
    if count == 1 {
        return "One point so far: the line is where the balance is.".into();
    }
    match by {
        By::Day => format!(
            "After each of {last}{count} days on which something happened, as the senders say; UTC."
        ),
        By::Transaction => {
            format!("After each of {last}{count} transactions, by when they were posted.")
        }
    }
}

fn table(account: &str, entries: &[Entry]) -> Markup {
    html! {
        table.list.wide {
            (parts::heads(&[Column::Left("Posted (UTC)"), Column::Right("Amount"), Column::Left("Other account"), Column::Left("Kind"), Column::Left("Reference"), Column::Left("Transaction")]))
            tbody { @for entry in entries { (line(account, entry)) } }
        }
    }
}

fn line(account: &str, entry: &Entry) -> Markup {
    let is_in = entry.credit_account == account;
    let (other, amount) = if is_in {
        (&entry.debit_account, i128::from(entry.amount))
    } else {
        (&entry.credit_account, -i128::from(entry.amount))
    };
    html! {
        tr {
            td { (text::time(&entry.recorded_at)) }
            td.right {
                span.money.good[is_in] {
                    (text::signed_amount(amount, entry.exponent)) " " span.currency { (entry.currency) }
                }
            }
            td { @if is_in { "from " } @else { "to " } (parts::account(other)) }
            td { (entry.kind) }
            td { (or_dash(entry.reference.as_deref().map(|reference| html! { (reference) }))) }
            td { (parts::transaction(entry.id)) }
        }
    }
}
