//! Balances of an account, over time, and the largest.

use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::database::Error;
use crate::store::{Whole, time};

/// How many currencies of one account are shown.
const CURRENCIES_MAX: i64 = 200;

/// What an account holds in one currency.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Balance {
    /// ISO 4217 code.
    pub currency: String,
    /// Decimal digits of the currency's minor unit.
    pub exponent: Option<i32>,
    /// Sum of what was taken from the account, minor units.
    #[sqlx(try_from = "String")]
    pub debits: Whole,
    /// Sum of what was given to the account, minor units.
    #[sqlx(try_from = "String")]
    pub credits: Whole,
    /// Credits minus debits, minor units.
    #[sqlx(try_from = "String")]
    pub balance: Whole,
    /// Posted transactions on either side.
    pub transactions: i64,
    /// The latest time at which one happened, as the senders say; RFC 3339.
    #[schema(format = DateTime)]
    pub last_occurred_at: String,
}

const BALANCES: &str = concat!(
    "select currency, exponent, debits::text, credits::text, balance::text, transactions, ",
    time!("last_occurred_at"),
    " as last_occurred_at
     from reports.balances where account = $1 order by currency limit $2"
);

/// Its balances by currency; none when nothing of it was ever posted.
pub async fn balances(pool: &PgPool, account: &str) -> Result<Vec<Balance>, Error> {
    Ok(sqlx::query_as(BALANCES)
        .bind(account)
        .bind(CURRENCIES_MAX)
        .fetch_all(pool)
        .await?)
}

/// A balance after a day or transaction.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Point {
    /// A day (`2026-01-31`), or a time in RFC 3339.
    pub at: String,
    /// Minor units.
    #[sqlx(try_from = "String")]
    pub balance: Whole,
}

/// The newest points of a chart: as many as can be told apart.
pub const POINTS_MAX: i64 = 1_000;

/// The balance after each day on which something happened, as the senders say; the last [`POINTS_MAX`]
/// days, oldest first. As fresh as the read model of days.
pub async fn by_day(pool: &PgPool, account: &str, currency: &str) -> Result<Vec<Point>, Error> {
    let query = "select to_char(day, 'YYYY-MM-DD') as at, balance::text
         from (
            select day, sum(credits - debits) over (order by day) as balance
            from reports.account_days where account = $1 and currency = $2
         ) d
         order by day desc limit $3";
    points(pool, query, account, currency).await
}

pub(super) async fn points(
    pool: &PgPool,
    query: &'static str,
    account: &str,
    currency: &str,
) -> Result<Vec<Point>, Error> {
    let mut points: Vec<Point> = sqlx::query_as(query)
        .bind(account)
        .bind(currency)
        .bind(POINTS_MAX)
        .fetch_all(pool)
        .await?;
    points.reverse();
    Ok(points)
}

/// An account among the largest.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Largest {
    /// The account.
    pub account: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Decimal digits of the currency's minor unit.
    pub exponent: Option<i32>,
    /// Minor units.
    #[sqlx(try_from = "String")]
    pub balance: Whole,
    /// Posted transactions on either side.
    pub transactions: i64,
}

/// The largest balances, the outside world left out. Reads every balance: ask seldom.
pub async fn largest(pool: &PgPool, limit: i64) -> Result<Vec<Largest>, Error> {
    let query =
        "select account, currency, exponent, balance::text, transactions from reports.balances b
         where account not like 'external:%' order by b.balance desc, account, currency limit $1";
    Ok(sqlx::query_as(query).bind(limit).fetch_all(pool).await?)
}

/// Accounts whose id begins with this, in order.
pub async fn beginning_with(pool: &PgPool, prefix: &str, limit: i64) -> Result<Vec<String>, Error> {
    // The largest character of an id is smaller than "{": a range that the primary key serves.
    let query = "select distinct account from reports.balances
         where account >= $1 and account < $1 || '{' order by account limit $2";
    Ok(sqlx::query_scalar(query)
        .bind(prefix)
        .bind(limit)
        .fetch_all(pool)
        .await?)
}
