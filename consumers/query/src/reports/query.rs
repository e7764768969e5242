//! The statement of a page, and its cursor.

use std::fmt::Write as _;

use axum::http::StatusCode;
use millrace_http::Problem;
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, PgPool, Row as _};

use crate::database::Error;
use crate::reports::catalog::{Column, Filter, Kind, Order, Report};

/// The values of a row as text, in the order of the report's columns.
pub type Row = Vec<Option<String>>;

/// A part of a report.
#[derive(Debug)]
pub struct Page {
    /// In the report's order.
    pub rows: Vec<Row>,
    /// Where the next page begins; none after the last one.
    pub next: Option<String>,
}

/// Reads at most `limit` rows that fit all filters (each with its checked value), after the cursor.
pub async fn fetch(
    pool: &PgPool,
    report: &Report,
    filters: &[(&Filter, String)],
    cursor: Option<&str>,
    limit: u32,
) -> Result<Page, Error> {
    let asked = Asked::of(report, filters);
    let after = cursor
        .map(|text| parse_cursor(report, &asked, text))
        .transpose()?;
    let mut values: Vec<&str> = filters.iter().map(|(_, value)| value.as_str()).collect();
    values.extend(after.iter().flatten().map(String::as_str));
    let conditions: Vec<&Filter> = filters.iter().map(|(filter, _)| *filter).collect();
    let sql = statement(report, &conditions, after.is_some());
    let mut arguments = PgArguments::default();
    for value in values {
        arguments.add(value).map_err(sqlx::Error::Encode)?;
    }
    // One more row than asked for tells whether there is a next page.
    arguments
        .add(i64::from(limit) + 1)
        .map_err(sqlx::Error::Encode)?;
    let found = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(pool)
        .await?;
    let mut rows = found
        .iter()
        .map(|row| read_row(row, report.columns.len()))
        .collect::<Result<Vec<_>, _>>()?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| cursor_at(report, &asked, row));
    Ok(Page { rows, next })
}

fn read_row(row: &PgRow, columns: usize) -> Result<Row, sqlx::Error> {
    (0..columns).map(|index| row.try_get(index)).collect()
}

/// Made of the catalog's texts only; every value is a parameter.
fn statement(report: &Report, filters: &[&Filter], has_cursor: bool) -> String {
    let columns: Vec<_> = report.columns.iter().map(as_text).collect();
    let by_account = filters.iter().find_map(|filter| filter.by_account);
    let view = by_account.unwrap_or(report.name);
    let mut sql = format!(
        "select {} from reports.{view} as {}",
        columns.join(", "),
        report.name
    );
    let mut number = 0;
    let mut join = " where ";
    // One account's rows are looked up, and the other conditions are on them.
    let mut lookup = by_account.map(|_| "account = $::text");
    for filter in filters {
        number += 1;
        if filter.by_account.is_some()
            && let Some(condition) = lookup.take()
        {
            sql.push_str(join);
            sql.push_str(&condition.replace('$', &format!("${number}")));
            join = " and ";
        }
        sql.push_str(join);
        sql.push_str(&filter.sql.replace('$', &format!("${number}")));
        join = " and ";
    }
    if has_cursor {
        let sign = match report.order {
            Order::Ascending => '>',
            Order::Descending => '<',
        };
        let values: Vec<_> = report
            .key
            .iter()
            .map(|name| {
                number += 1;
                format!("${number}::{}", type_of(key_column(report, name)))
            })
            .collect();
        let _ = write!(
            sql,
            "{join}({}) {sign} ({})",
            report.key.join(", "),
            values.join(", ")
        );
    }
    let direction = match report.order {
        Order::Ascending => "",
        Order::Descending => " desc",
    };
    // Named by table: the select list has texts of the same names.
    let order: Vec<_> = report
        .key
        .iter()
        .map(|name| format!("{}.{name}{direction}", report.name))
        .collect();
    let _ = write!(sql, " order by {} limit ${}", order.join(", "), number + 1);
    sql
}

fn key_column<'a>(report: &'a Report, name: &str) -> &'a Column {
    let mut columns = report.columns.iter();
    let column = columns.find(|column| column.name == name);
    column.expect("a report's key is made of its columns")
}

fn type_of(column: &Column) -> &'static str {
    match column.kind {
        Kind::Text | Kind::Object | Kind::Bytes => "text",
        Kind::Uuid => "uuid",
        Kind::Integer | Kind::Seconds => "numeric",
        Kind::Time => "timestamptz",
        Kind::Date => "date",
        Kind::Boolean => "boolean",
    }
}

fn as_text(column: &Column) -> String {
    let name = column.name;
    match column.kind {
        Kind::Time => format!(
            "to_char({name} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as {name}"
        ),
        Kind::Date => format!("to_char({name}, 'YYYY-MM-DD') as {name}"),
        Kind::Bytes => format!("translate(encode({name}, 'base64'), E'\\n', '') as {name}"),
        _ => format!("{name}::text as {name}"),
    }
}

/// What a cursor belongs to: elsewhere it would silently skip rows.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked(String, Vec<(String, String)>);

impl Asked {
    fn of(report: &Report, filters: &[(&Filter, String)]) -> Self {
        let mut filters: Vec<_> = filters
            .iter()
            .map(|(filter, value)| (filter.name.to_owned(), value.clone()))
            .collect();
        filters.sort_unstable();
        Self(report.name.to_owned(), filters)
    }
}

fn cursor_at(report: &Report, asked: &Asked, row: &Row) -> String {
    let values: Vec<_> = report
        .key
        .iter()
        .map(|name| {
            let index = report.columns.iter().position(|c| c.name == *name);
            index.and_then(|index| row[index].as_deref())
        })
        .collect();
    let json = serde_json::to_string(&(asked, values)).expect("texts are always JSON");
    hex::encode(json)
}

fn parse_cursor(report: &Report, asked: &Asked, text: &str) -> Result<Vec<String>, Problem> {
    let cursor = hex::decode(text)
        .ok()
        .and_then(|json| serde_json::from_slice::<(Asked, Vec<String>)>(&json).ok());
    let values = cursor
        .filter(|(of, _)| of == asked)
        .map(|(_, values)| values);
    let fits = |values: &Vec<String>| {
        let columns = report.key.iter().map(|name| key_column(report, name));
        values.len() == report.key.len()
            && values
                .iter()
                .zip(columns)
                .all(|(value, column)| is_of(value, column.kind))
    };
    values.filter(fits).ok_or_else(invalid_cursor)
}

/// A cursor that no answer has given out.
pub fn invalid_cursor() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_cursor",
        "a cursor is taken from the answer before, as it is, to the same report with the same filters",
    )
    .field("cursor")
}

fn is_of(value: &str, kind: Kind) -> bool {
    match kind {
        Kind::Integer => value.parse::<i64>().is_ok(),
        Kind::Time => crate::reports::filter::Value::Time.check(value).is_ok(),
        Kind::Date => crate::reports::filter::Value::Date.check(value).is_ok(),
        Kind::Uuid => uuid::Uuid::try_parse(value).is_ok(),
        _ => !value.contains('\0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::catalog::report;

    #[test]
    fn values_are_parameters_and_pages_follow_the_key() {
        let report = report("flows").unwrap();
        let filters: Vec<_> = report.filters[..2].iter().collect();
        let sql = statement(report, &filters, true);
        assert!(
            sql.ends_with(
                " from reports.flows as flows where debit_account = $1::text and credit_account = $2::text and \
                 (debit_account, credit_account, currency, month) > ($3::text, $4::text, $5::text, $6::date) \
                 order by flows.debit_account, flows.credit_account, flows.currency, flows.month limit $7"
            ),
            "{sql}"
        );
    }

    #[test]
    fn an_account_s_transactions_are_looked_up_by_the_first_account_asked_for() {
        let report = report("transactions").unwrap();
        let named = |name| {
            report
                .filters
                .iter()
                .find(|filter| filter.name == name)
                .unwrap()
        };
        let sql = statement(
            report,
            &[
                named("currency"),
                named("debit_account"),
                named("credit_account"),
            ],
            false,
        );
        assert!(
            sql.ends_with(
                " from reports.account_transactions as transactions where currency = $1::text and \
                 account = $2::text and debit_account = $2::text and credit_account = $3::text \
                 order by transactions.partition, transactions.seq limit $4"
            ),
            "{sql}"
        );
    }

    #[test]
    fn cursors_round_trip_and_others_are_refused() {
        let report = report("rejections").unwrap();
        let mut row: Row = vec![None; report.columns.len()];
        let values = ["2026-01-02T03:04:05.000006Z", "11", "7"];
        for (name, value) in report.key.iter().zip(values) {
            let index = report.columns.iter().position(|c| c.name == *name).unwrap();
            row[index] = Some(value.into());
        }
        let asked = Asked::of(report, &[]);
        let cursor = cursor_at(report, &asked, &row);
        assert_eq!(parse_cursor(report, &asked, &cursor).unwrap(), values);
        let filtered = Asked::of(report, &[(&report.filters[0], "x".into())]);
        assert!(parse_cursor(report, &filtered, &cursor).is_err());
        let of = |values: &str| hex::encode(format!("[[\"rejections\",[]],{values}]"));
        for bad in [
            "",
            "xyz",
            "5b5d",
            "0",
            &of(r#"["a","1","2"]"#),
            &of("[1,2,3]"),
            "äö",
        ] {
            assert_eq!(
                parse_cursor(report, &asked, bad).unwrap_err().code(),
                "invalid_cursor",
                "{bad}"
            );
        }
    }
}
