//! What is due when, and its body.

use std::fmt::Write as _;
use std::time::Duration;

use uuid::Uuid;

use crate::cli::{Cli, Format};

/// Multiplies places into accounts that look drawn: Knuth's multiplicative hash.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// All requests of a run.
#[derive(Debug, Clone)]
pub struct Load {
    items: u64,
    rate: u64,
    accounts: u64,
    format: Format,
    /// Requests before the measured ones.
    warmup: u64,
    /// All requests.
    pub requests: u64,
}

impl Load {
    /// As the flags want it.
    pub fn new(cli: &Cli) -> Self {
        let (items, rate) = (u64::from(cli.items), u64::from(cli.rate));
        let requests = |seconds: u32| u64::from(seconds) * rate / items;
        Self {
            items,
            rate,
            accounts: cli.accounts.into(),
            format: cli.format,
            warmup: requests(cli.warmup),
            requests: requests(cli.warmup + cli.seconds),
        }
    }

    /// When a request is due, after the start.
    pub fn due(&self, request: u64) -> Duration {
        let nanos = u128::from(request) * u128::from(self.items) * 1_000_000_000;
        Duration::from_nanos(u64::try_from(nanos / u128::from(self.rate)).unwrap_or(u64::MAX))
    }

    /// Whether it counts.
    pub fn is_measured(&self, request: u64) -> bool {
        request >= self.warmup
    }

    /// The body of a request, with new ids.
    pub fn body(&self, request: u64) -> String {
        let is_array = self.format == Format::Json && self.items > 1;
        let (open, between, close) = if is_array {
            ("[", ",", "]")
        } else {
            ("", "\n", "")
        };
        let mut body = open.to_owned();
        for item in 0..self.items {
            if item > 0 {
                body.push_str(between);
            }
            self.write_item(&mut body, request * self.items + item);
        }
        body.push_str(close);
        body
    }

    fn write_item(&self, body: &mut String, place: u64) {
        let drawn = place.wrapping_mul(SPREAD) >> 20;
        let debit = drawn % self.accounts;
        let credit = (debit + 1 + (drawn >> 22) % (self.accounts - 1)) % self.accounts;
        // Writing to a string cannot fail.
        let _ = write!(
            body,
            r#"{{"id":"{}","kind":"transfer","debit_account":"account-{debit}","credit_account":"account-{credit}","amount":{},"currency":"EUR","occurred_at":"2026-01-31T12:00:00Z","reference":"payment {place}","source":"latency"}}"#,
            Uuid::now_v7(),
            1 + drawn % 10_000,
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;

    fn load(flags: &str) -> Load {
        let always =
            "latency --gateway 127.0.0.1:1 --query 127.0.0.1:2 --database-url postgres:/// ";
        Load::new(&Cli::parse_from((always.to_owned() + flags).split(' ')))
    }

    #[test]
    fn requests_are_due_evenly() {
        let load = load("--rate 10000 --items 100 --seconds 3 --warmup 1");
        assert_eq!(load.requests, 400);
        assert_eq!(load.due(0), Duration::ZERO);
        assert_eq!(load.due(150), Duration::from_millis(1_500));
        assert!(!load.is_measured(99) && load.is_measured(100));
    }

    #[test]
    fn bodies_are_what_their_format_says() {
        let one: Value = serde_json::from_str(&load("--items 1").body(3)).unwrap();
        assert_ne!(one["debit_account"], one["credit_account"]);
        let array: Vec<Value> = serde_json::from_str(&load("--items 3").body(0)).unwrap();
        assert_eq!(array.len(), 3);
        let lines = load("--items 3 --format ndjson").body(0);
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_ne!(lines[0]["id"], lines[1]["id"]);
    }

    #[test]
    fn accounts_are_different_for_every_place() {
        let load = load("--accounts 2");
        for request in 0..1_000 {
            let item: Value = serde_json::from_str(&load.body(request)).unwrap();
            assert_ne!(item["debit_account"], item["credit_account"]);
        }
    }
}
