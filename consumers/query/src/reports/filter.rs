//! Checking the value of a filter: what Postgres is given it can always cast.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::Date;
use millrace_rules::account::ACCOUNT_PATTERN;
use millrace_rules::{AccountId, Currency, ParkReason, Reason};

/// What values a filter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// An account id.
    Account,
    /// An ISO 4217 code.
    Currency,
    /// Any text of at most so many characters, without control characters.
    Text(usize),
    /// A partition.
    Partition,
    /// YYYY-MM-DD.
    Date,
    /// RFC 3339.
    Time,
    /// Why records are rejected.
    Reason,
    /// Why records are parked.
    ParkReason,
    /// true or false.
    Boolean,
}

/// Years that every format and the database can show.
const YEARS: std::ops::RangeInclusive<i16> = 1..=9998;

impl Value {
    /// The value as the database takes it, or what would be right.
    pub fn check(self, text: &str) -> Result<String, Cow<'static, str>> {
        let wrong = |what: &'static str| Err(Cow::Borrowed(what));
        match self {
            Self::Account if AccountId::parse(text.into()).is_err() => {
                Err(format!("an account id, {ACCOUNT_PATTERN}").into())
            }
            Self::Currency if Currency::parse(text).is_none() => {
                wrong("an ISO 4217 code with minor units")
            }
            Self::Text(max) if text.chars().count() > max || text.chars().any(char::is_control) => {
                Err(format!("at most {max} characters without control characters").into())
            }
            Self::Partition if !is_partition(text) => wrong("a partition, 0 to 2147483647"),
            Self::Reason if !Reason::ALL.iter().any(|r| r.as_str() == text) => {
                wrong("a reason of a rejection, such as insufficient_funds")
            }
            Self::ParkReason if !ParkReason::ALL.iter().any(|r| r.as_str() == text) => {
                wrong("a reason of parking, such as undecodable")
            }
            Self::Boolean if !matches!(text, "true" | "false") => wrong("true or false"),
            Self::Date => match text.parse::<Date>() {
                Ok(date) if text.len() == 10 && YEARS.contains(&date.year()) => {
                    Ok(date.to_string())
                }
                _ => wrong("a date, YYYY-MM-DD, within the years 1 to 9998"),
            },
            Self::Time => match text.parse::<Timestamp>() {
                Ok(time) if (1..9999).contains(&jiff::tz::Offset::UTC.to_datetime(time).year()) => {
                    Ok(time.to_string())
                }
                _ => wrong(
                    "a time, RFC 3339 such as 2026-01-31T12:00:00Z, within the years 1 to 9998",
                ),
            },
            _ => Ok(text.to_owned()),
        }
    }
}

fn is_partition(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_values_pass_and_bad_ones_say_what_is_right() {
        for (value, good, bad) in [
            (Value::Account, "alice", "Alice"),
            (Value::Currency, "EUR", "eur"),
            (Value::Text(3), "äöü", "abcd"),
            (Value::Text(3), "", "a\0"),
            (Value::Partition, "11", "-1"),
            (Value::Partition, "0", "2147483648"),
            (Value::Date, "2026-02-28", "2026-02-30"),
            (Value::Date, "0001-01-01", "10000-01-01"),
            (Value::Time, "2026-01-31T12:00:00Z", "2026-01-31"),
            (Value::Time, "2026-01-31T12:00:00.5+02:00", "yesterday"),
            (Value::Reason, "insufficient_funds", "because"),
            (Value::ParkReason, "behind", "insufficient_funds"),
            (Value::Boolean, "true", "yes"),
        ] {
            assert!(value.check(good).is_ok(), "{value:?} {good}");
            assert!(value.check(bad).is_err(), "{value:?} {bad}");
        }
    }
}
