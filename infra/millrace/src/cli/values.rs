//! What values of flags must be.

use std::num::NonZeroUsize;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// What a flag for a time takes.
const DURATION_MIN: Duration = Duration::from_millis(1);
const DURATION_MAX: Duration = Duration::from_hours(24);

/// A count of things that must be there.
pub fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "a whole number of at least 1".into())
}

/// A time as people write it: 20s, 500ms, 1m 30s. At least a millisecond, at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| (DURATION_MIN..=DURATION_MAX).contains(duration))
        .ok_or_else(|| "a time from 1ms to 24h, such as 20s or 1m 30s".into())
}

/// A text that says something and that the database can keep.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_text = !text.is_empty() && text.len() <= 1_000 && !text.contains('\0');
    is_text
        .then(|| text.to_owned())
        .ok_or_else(|| "1 to 1,000 bytes of text".into())
}

/// A list of host:port.
pub fn brokers(text: &str) -> Result<String, String> {
    let valid = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    match text.split(',').find(|broker| !valid(broker.trim())) {
        None => Ok(text.to_owned()),
        Some(broker) => Err(format!("{broker:?} is not host:port")),
    }
}

pub fn topic(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = (1..=249).contains(&text.len()) && text.chars().all(legal);
    if is_name && !matches!(text, "." | "..") {
        Ok(text.to_owned())
    } else {
        Err("a topic has 1 to 249 of A-Z a-z 0-9 . _ - and is not . or ..".into())
    }
}

pub fn database_url(text: &str) -> Result<PgConnectOptions, String> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err("it begins with postgres://".into());
    }
    PgConnectOptions::from_str(text).map_err(|error| error.to_string())
}

pub fn log_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_people_write_them() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "20", "-5s", "0s", "2 days", "25h", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
