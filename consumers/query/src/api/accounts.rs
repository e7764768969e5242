//! `GET /v1/accounts/{account}` and its transactions.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use millrace_http::Problem;
use millrace_rules::AccountId;
use millrace_rules::account::ACCOUNT_PATTERN;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Query;
use crate::api::answer::{Failures, fresh, fresh_for, json, stamped};
use crate::api::params::{Params, Waiting, wrong};
use crate::database::Error;
use crate::store::accounts::{Balance, balances};
use crate::store::threads::of_account;
use crate::store::transactions::Entry;

/// The most transactions of an account in one answer.
pub const PAGE_MAX: u32 = 1_000;

/// An account.
#[derive(Serialize, ToSchema)]
struct Account {
    /// Its id.
    account: String,
    /// One per currency.
    balances: Vec<Balance>,
}

/// A part of an account's transactions.
#[derive(Serialize, ToSchema)]
struct Entries {
    /// The newest first.
    transactions: Vec<Entry>,
    /// The parameter `cursor` of the next page; null after the last one.
    next: Option<String>,
}

/// What an account has moved and holds, per currency.
#[utoipa::path(
    get, path = "/v1/accounts/{account}", tag = "accounts", operation_id = "account",
    params(
        ("account" = String, Path, description = "The account's id", pattern = "^[a-z0-9][A-Za-z0-9._:-]{0,63}$"),
        Waiting
    ),
    responses(
        (status = 200, description = "Its balances", body = Account,
            headers(("millrace-as-of" = String), ("millrace-staleness-ms" = String))),
        (status = 404, description = "Nothing of this account is posted, as of the time in the headers", body = Problem,
            content_type = "application/problem+json"),
        Failures,
    )
)]
pub async fn show(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Error> {
    let account = account_of(path)?;
    let as_of = fresh_for(&query, &uri).await?;
    let balances = balances(&query.pools.by_key, &account).await?;
    Ok(if balances.is_empty() {
        let detail = format!("nothing of account {account} is posted yet");
        let problem = Problem::new(StatusCode::NOT_FOUND, "account_not_found", detail);
        stamped(as_of, problem.field("account"))
    } else {
        json(as_of, &Account { account, balances })
    })
}

/// An account's posted transactions, the newest first, by cursor. What is posted meanwhile moves no page.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/transactions", tag = "accounts", operation_id = "account_transactions",
    params(
        ("account" = String, Path, description = "The account's id", pattern = "^[a-z0-9][A-Za-z0-9._:-]{0,63}$"),
        ("limit" = Option<u32>, Query, description = "How many", minimum = 1, maximum = 1000, nullable = false),
        ("cursor" = Option<String>, Query, description = "`next` of the answer before", nullable = false,
            pattern = "^[0-9]{1,9}\\.[0-9]{1,18}(-[0-9]{1,9}\\.[0-9]{1,18})*$"),
        Waiting
    ),
    responses(
        (status = 200, description = "A page; empty for an account that nothing is posted of", body = Entries,
            headers(("millrace-as-of" = String), ("millrace-staleness-ms" = String))),
        Failures,
    )
)]
pub async fn transactions(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Error> {
    let account = account_of(path)?;
    let mut params = Params::of(&uri)?;
    let waiting = params.waiting()?;
    let limit = params.limit(PAGE_MAX)?;
    let cursor = params.take("cursor");
    params.end()?;
    let as_of = fresh(&query, waiting, None).await?;
    let (transactions, next) =
        of_account(&query.pools.by_key, &account, cursor.as_deref(), limit).await?;
    Ok(json(as_of, &Entries { transactions, next }))
}

/// The account of the path.
pub(crate) fn account_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let text = super::path(path)?;
    AccountId::parse(text.into())
        .map(|account| account.into_inner().into_owned())
        .map_err(|_| {
            wrong(
                "invalid_account",
                "account",
                format!("an account id is {ACCOUNT_PATTERN}"),
            )
        })
}
