//! What is due when, and its body.

use std::fmt::Write as _;
use std::time::Duration;

use millrace_generator::{IdVersion, Skew, Workload};
use millrace_rules::Currency;
use uuid::Uuid;

use crate::case::{Case, Shape};
use crate::cli::Settings;

/// Multiplies places into accounts that look drawn: Knuth's multiplicative hash.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// When the first generated transaction occurs: 2026-01-31T12:00:00Z, microseconds since 1970.
const START_MICROS: i64 = 1_769_860_800_000_000;

/// All requests of a run; straight to Kafka each record is one.
#[derive(Debug, Clone)]
pub struct Load {
    items: u64,
    rate: u64,
    accounts: u64,
    shape: Shape,
    /// Requests before the measured ones.
    warmup: u64,
    /// Every how many-th request is looked for.
    look_every: u64,
    /// All requests.
    pub requests: u64,
}

impl Load {
    /// As the flags want it.
    pub fn new(case: &Case, settings: &Settings) -> Self {
        let (items, rate) = (u64::from(case.items), u64::from(case.rate));
        let requests = |seconds: u32| u64::from(seconds) * rate / items;
        let look_every = requests(settings.seconds) / u64::from(settings.samples);
        Self {
            items,
            rate,
            accounts: settings.accounts.into(),
            shape: case.shape,
            warmup: requests(settings.warmup),
            look_every: look_every.max(1),
            requests: requests(settings.warmup + settings.seconds),
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

    /// Whether it is one of the samples.
    pub fn is_looked_for(&self, request: u64) -> bool {
        request.is_multiple_of(self.look_every)
    }

    /// Transactions in a request.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// How they are offered.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is published, straight to Kafka.
    pub fn workload(&self) -> Workload {
        Workload {
            count: self.requests,
            #[expect(clippy::cast_precision_loss, reason = "a rate is a u32")]
            rate: Some(self.rate as f64),
            accounts: self.accounts,
            skew: Skew::Uniform,
            seed: 1,
            id_version: IdVersion::V7,
            currency: Currency::parse("EUR").expect("a currency"),
            external_share: 0.0,
            start_micros: START_MICROS,
        }
    }

    /// The body of a request, with new ids.
    pub fn body(&self, request: u64) -> String {
        let (open, between, close) = match self.shape {
            Shape::Array => ("[", ",", "]"),
            Shape::Single | Shape::Ndjson | Shape::Kafka => ("", "\n", ""),
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
            r#"{{"id":"{}","kind":"transfer","debit_account":"account-{debit}","credit_account":"account-{credit}","amount":{},"currency":"EUR","occurred_at":"2026-01-31T12:00:00Z","reference":"payment {place}","source":"open-loop"}}"#,
            Uuid::now_v7(),
            1 + drawn % 10_000,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn load(shape: Shape, rate: u32, items: u32) -> Load {
        let settings = Settings {
            seconds: 3,
            warmup: 1,
            samples: 20,
            connections: 1,
            accounts: 2,
            partitions: 1,
            lanes: 1,
        };
        Load::new(&Case::new(shape, rate, items), &settings)
    }

    #[test]
    fn requests_are_due_evenly() {
        let load = load(Shape::Ndjson, 10_000, 100);
        assert_eq!(load.requests, 400);
        assert_eq!(load.due(0), Duration::ZERO);
        assert_eq!(load.due(150), Duration::from_millis(1_500));
        assert!(!load.is_measured(99) && load.is_measured(100));
    }

    #[test]
    fn there_are_at_least_as_many_samples_as_wanted() {
        for rate in [3, 20, 50, 1_000] {
            let load = load(Shape::Kafka, rate, 1);
            let measured = (0..load.requests).filter(|request| load.is_measured(*request));
            let samples = measured.filter(|request| load.is_looked_for(*request));
            let samples = samples.count();
            let wanted = 20.min(3 * rate as usize);
            assert!((wanted..2 * wanted).contains(&samples), "{rate}: {samples}");
        }
    }

    #[test]
    fn what_is_generated_is_due_when_it_occurs() {
        let load = load(Shape::Kafka, 500, 1);
        let transactions: Vec<_> = load.workload().transactions().unwrap().collect();
        assert_eq!(transactions.len(), 2_000);
        let last = transactions[1_999].occurred_at - START_MICROS;
        assert_eq!(u128::try_from(last), Ok(load.due(1_999).as_micros()));
    }

    #[test]
    fn bodies_are_what_their_shape_says() {
        let one: Value = serde_json::from_str(&load(Shape::Single, 10, 1).body(3)).unwrap();
        assert_ne!(one["debit_account"], one["credit_account"]);
        let array: Vec<Value> = serde_json::from_str(&load(Shape::Array, 10, 3).body(0)).unwrap();
        assert_eq!(array.len(), 3);
        let lines = load(Shape::Ndjson, 10, 3).body(0);
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_ne!(lines[0]["id"], lines[1]["id"]);
    }

    #[test]
    fn accounts_are_different_for_every_place() {
        let load = load(Shape::Single, 10, 1);
        for request in 0..1_000 {
            let item: Value = serde_json::from_str(&load.body(request)).unwrap();
            assert_ne!(item["debit_account"], item["credit_account"]);
        }
    }
}
