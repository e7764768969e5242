//! Every report: its columns, filters and order.

use crate::reports::filter::Value;

/// A view of schema `reports`.
#[derive(Debug)]
pub struct Report {
    /// The view's name.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// In the order of the answer.
    pub columns: &'static [Column],
    /// What rows can be chosen by.
    pub filters: &'static [Filter],
    /// Columns that together are unique and never null: the order of pages.
    pub key: &'static [&'static str],
    /// The direction of all of them.
    pub order: Order,
    /// The background read model that it shows.
    pub model: Option<&'static str>,
}

/// The direction of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A column of a report.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it can be null.
    pub nullable: bool,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A UUID.
    Uuid,
    /// A whole number of any size: minor units, counts, offsets.
    Integer,
    /// Seconds to the millisecond.
    Seconds,
    /// RFC 3339 in UTC, to the microsecond.
    Time,
    /// YYYY-MM-DD.
    Date,
    /// An object of texts.
    Object,
    /// Bytes, as base64.
    Bytes,
    /// true or false.
    Boolean,
}

/// What rows can be chosen by.
#[derive(Debug)]
pub struct Filter {
    /// The parameter.
    pub name: &'static str,
    /// The condition; `$` stands for the value.
    pub sql: &'static str,
    /// The view in which the value is looked up as the account, instead of the report's own, and its name there.
    pub by_account: Option<&'static str>,
    /// What values it takes.
    pub value: Value,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        nullable: false,
    }
}

const fn nullable(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        nullable: true,
    }
}

const fn filter(name: &'static str, sql: &'static str, value: Value) -> Filter {
    Filter {
        name,
        sql,
        by_account: None,
        value,
    }
}

/// Transactions of an account: the ledger has no index on accounts, but each account a thread of its own.
const fn of_account(name: &'static str, sql: &'static str) -> Filter {
    Filter {
        by_account: Some("account_transactions"),
        ..filter(name, sql, Value::Account)
    }
}

const EXPONENT: Column = nullable("exponent", Kind::Integer);
const CURRENCY: Filter = filter("currency", "currency = $::text", Value::Currency);
const PARTITION: Filter = filter("partition", "partition = $::int", Value::Partition);
const KIND: Filter = filter("kind", "kind = $::text", Value::Text(64));
const DEBIT: Filter = filter("debit_account", "debit_account = $::text", Value::Account);
const CREDIT: Filter = filter("credit_account", "credit_account = $::text", Value::Account);
const ACCOUNT: Filter = filter("account", "account = $::text", Value::Account);
const DAY_FROM: Filter = filter("from", "day >= $::date", Value::Date);
const DAY_TO: Filter = filter("to", "day <= $::date", Value::Date);
const RECORDED_FROM: Filter = filter(
    "recorded_from",
    "recorded_at >= $::timestamptz",
    Value::Time,
);
const RECORDED_TO: Filter = filter("recorded_to", "recorded_at < $::timestamptz", Value::Time);

/// The report of this name.
pub fn report(name: &str) -> Option<&'static Report> {
    REPORTS.iter().find(|report| report.name == name)
}

/// Every report.
pub static REPORTS: [Report; 10] = [
    Report {
        name: "transactions",
        about: "Every posted transaction, once.",
        columns: &[
            column("id", Kind::Uuid),
            column("kind", Kind::Text),
            column("debit_account", Kind::Text),
            column("credit_account", Kind::Text),
            column("amount", Kind::Integer),
            column("currency", Kind::Text),
            EXPONENT,
            column("occurred_at", Kind::Time),
            column("recorded_at", Kind::Time),
            nullable("reference", Kind::Text),
            column("source", Kind::Text),
            nullable("metadata", Kind::Object),
            column("partition", Kind::Integer),
            column("seq", Kind::Integer),
            column("log_offset", Kind::Integer),
        ],
        filters: &[
            of_account(
                "account",
                "(debit_account = $::text or credit_account = $::text)",
            ),
            of_account("debit_account", DEBIT.sql),
            of_account("credit_account", CREDIT.sql),
            CURRENCY,
            KIND,
            filter("source", "source = $::text", Value::Text(64)),
            PARTITION,
            filter(
                "occurred_from",
                "occurred_at >= $::timestamptz",
                Value::Time,
            ),
            filter("occurred_to", "occurred_at < $::timestamptz", Value::Time),
            RECORDED_FROM,
            RECORDED_TO,
        ],
        key: &["partition", "seq"],
        order: Order::Ascending,
        model: None,
    },
    Report {
        name: "balances",
        about: "What every account has moved and holds, per currency.",
        columns: &[
            column("account", Kind::Text),
            column("currency", Kind::Text),
            EXPONENT,
            column("debits", Kind::Integer),
            column("credits", Kind::Integer),
            column("balance", Kind::Integer),
            column("transactions", Kind::Integer),
            column("last_occurred_at", Kind::Time),
        ],
        filters: &[ACCOUNT, CURRENCY],
        key: &["account", "currency"],
        order: Order::Ascending,
        model: None,
    },
    Report {
        name: "daily_totals",
        about: "What was moved per UTC day, currency and kind.",
        columns: &[
            column("day", Kind::Date),
            column("currency", Kind::Text),
            EXPONENT,
            column("kind", Kind::Text),
            column("transactions", Kind::Integer),
            column("amount", Kind::Integer),
            column("amount_min", Kind::Integer),
            column("amount_max", Kind::Integer),
        ],
        filters: &[DAY_FROM, DAY_TO, CURRENCY, KIND],
        key: &["day", "currency", "kind"],
        order: Order::Descending,
        model: None,
    },
    Report {
        name: "account_days",
        about: "What every account moved per UTC day. Follows the ledger within seconds.",
        columns: &[
            column("account", Kind::Text),
            column("currency", Kind::Text),
            EXPONENT,
            column("day", Kind::Date),
            column("debits", Kind::Integer),
            column("credits", Kind::Integer),
            column("transactions", Kind::Integer),
        ],
        filters: &[ACCOUNT, CURRENCY, DAY_FROM, DAY_TO],
        key: &["account", "currency", "day"],
        order: Order::Ascending,
        model: Some("account_days"),
    },
    Report {
        name: "flows",
        about: "What went from account to account per UTC month. Follows the ledger within seconds.",
        columns: &[
            column("debit_account", Kind::Text),
            column("credit_account", Kind::Text),
            column("currency", Kind::Text),
            EXPONENT,
            column("month", Kind::Date),
            column("transactions", Kind::Integer),
            column("amount", Kind::Integer),
        ],
        filters: &[
            DEBIT,
            CREDIT,
            CURRENCY,
            filter("from", "month >= $::date", Value::Date),
            filter("to", "month <= $::date", Value::Date),
        ],
        key: &["debit_account", "credit_account", "currency", "month"],
        order: Order::Ascending,
        model: Some("flows"),
    },
    Report {
        name: "rejections",
        about: "Every record that was rejected or refused, and why; the latest first.",
        columns: &[
            nullable("id", Kind::Uuid),
            column("reason", Kind::Text),
            nullable("detail", Kind::Text),
            nullable("debit_account", Kind::Text),
            nullable("credit_account", Kind::Text),
            nullable("amount", Kind::Integer),
            nullable("currency", Kind::Text),
            EXPONENT,
            nullable("occurred_at", Kind::Time),
            column("recorded_at", Kind::Time),
            column("partition", Kind::Integer),
            column("seq", Kind::Integer),
            column("log_offset", Kind::Integer),
        ],
        filters: &[
            filter("reason", "reason = $::text", Value::Reason),
            DEBIT,
            CREDIT,
            PARTITION,
            RECORDED_FROM,
            RECORDED_TO,
        ],
        key: &["recorded_at", "partition", "seq"],
        order: Order::Descending,
        model: None,
    },
    Report {
        name: "parked",
        about: "Every record that was put aside for an operator, byte for byte, and what became of it.",
        columns: &[
            column("partition", Kind::Integer),
            column("seq", Kind::Integer),
            column("log_offset", Kind::Integer),
            nullable("key_text", Kind::Text),
            column("reason", Kind::Text),
            column("detail", Kind::Text),
            column("parked_at", Kind::Time),
            nullable("id", Kind::Uuid),
            nullable("bytes", Kind::Bytes),
            column("headers", Kind::Bytes),
            nullable("resolution", Kind::Text),
            nullable("resolution_reason", Kind::Text),
            nullable("operator", Kind::Text),
            nullable("resolved_at", Kind::Time),
        ],
        filters: &[
            PARTITION,
            filter("reason", "reason = $::text", Value::ParkReason),
            filter(
                "key",
                "key = convert_to($::text, 'UTF8')",
                Value::Text(1024),
            ),
            filter("open", "(resolution is null) = $::boolean", Value::Boolean),
        ],
        key: &["partition", "seq"],
        order: Order::Descending,
        model: None,
    },
    Report {
        name: "conservation",
        about: "That nothing is lost: every offset of the log has exactly one verdict, or holds no record.",
        columns: &[
            column("partition", Kind::Integer),
            column("incarnation", Kind::Integer),
            column("start_offset", Kind::Integer),
            column("position", Kind::Integer),
            column("posted", Kind::Integer),
            column("duplicate", Kind::Integer),
            column("rejected", Kind::Integer),
            column("parked", Kind::Integer),
            column("discarded", Kind::Integer),
            column("records", Kind::Integer),
            column("skipped", Kind::Integer),
            column("holds", Kind::Boolean),
            nullable("not_yet_applied", Kind::Integer),
        ],
        filters: &[PARTITION],
        key: &["partition", "incarnation"],
        order: Order::Ascending,
        model: None,
    },
    Report {
        name: "freshness",
        about: "How current the ledger and the balances are, per partition.",
        columns: &[
            column("partition", Kind::Integer),
            column("incarnation", Kind::Integer),
            column("position", Kind::Integer),
            nullable("recorded_at", Kind::Time),
            nullable("owner", Kind::Text),
            nullable("state", Kind::Text),
            nullable("detail", Kind::Text),
            nullable("log_end", Kind::Integer),
            nullable("lag_records", Kind::Integer),
            nullable("oldest_unapplied_at", Kind::Time),
            nullable("oldest_unapplied_age_s", Kind::Seconds),
            nullable("status_age_s", Kind::Seconds),
            column("next_seq", Kind::Integer),
        ],
        filters: &[PARTITION],
        key: &["partition"],
        order: Order::Ascending,
        model: None,
    },
    Report {
        name: "read_model_freshness",
        about: "How current each read model is, per partition.",
        columns: &[
            column("model", Kind::Text),
            column("partition", Kind::Integer),
            column("mode", Kind::Text),
            column("cost", Kind::Text),
            column("position", Kind::Integer),
            column("next_seq", Kind::Integer),
            column("lag_seqs", Kind::Integer),
            nullable("oldest_unfolded_at", Kind::Time),
            column("oldest_unfolded_age_s", Kind::Seconds),
            nullable("error", Kind::Text),
            nullable("failed_at", Kind::Time),
        ],
        filters: &[
            filter("model", "model = $::text", Value::Text(64)),
            PARTITION,
        ],
        key: &["model", "partition"],
        order: Order::Ascending,
        model: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_columns_that_are_never_null() {
        for report in &REPORTS {
            for key in report.key {
                let column = report.columns.iter().find(|c| c.name == *key);
                assert!(column.is_some_and(|c| !c.nullable), "{} {key}", report.name);
            }
        }
    }

    #[test]
    fn every_condition_has_its_value() {
        for report in &REPORTS {
            for filter in report.filters {
                assert!(
                    filter.sql.contains("$::"),
                    "{} {}",
                    report.name,
                    filter.name
                );
            }
        }
    }
}
