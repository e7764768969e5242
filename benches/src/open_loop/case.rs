//! One load: how it is offered, and how fast.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How transactions are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Posted one by one, as JSON objects.
    Single,
    /// Posted as NDJSON.
    Ndjson,
    /// Posted as JSON arrays.
    Array,
    /// The generator's, handed to a publisher.
    Kafka,
}

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// How.
    pub shape: Shape,
    /// Transactions per second.
    pub rate: u32,
    /// Transactions in a request.
    pub items: u32,
}

impl Shape {
    /// The media type of a request.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Single | Self::Array | Self::Kafka => "application/json",
        }
    }

    const fn is_batch(self) -> bool {
        matches!(self, Self::Ndjson | Self::Array)
    }
}

impl Case {
    /// `items` is for the shapes that have several.
    pub const fn new(shape: Shape, rate: u32, items: u32) -> Self {
        Self {
            shape,
            rate,
            items: if shape.is_batch() { items } else { 1 },
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, rate, items } = self;
        let rate = thousands(*rate);
        match shape {
            Shape::Single => write!(f, "{rate}/s, single posts"),
            Shape::Ndjson => write!(f, "{rate}/s, NDJSON of {items}"),
            Shape::Array => write!(f, "{rate}/s, arrays of {items}"),
            Shape::Kafka => write!(f, "{rate}/s, straight to Kafka"),
        }
    }
}

fn thousands(number: u32) -> String {
    match (number / 1_000, number % 1_000) {
        (0, rest) => rest.to_string(),
        (above, rest) => format!("{},{rest:03}", thousands(above)),
    }
}

/// Single posts where clients would, batches beyond, and every rate straight to Kafka.
pub fn suite(items: u32) -> Vec<Case> {
    let case = |shape| move |rate| Case::new(shape, rate, items);
    let single = [1_000, 5_000].map(case(Shape::Single));
    let ndjson = [10_000, 20_000].map(case(Shape::Ndjson));
    let kafka = [1_000, 5_000, 10_000, 20_000].map(case(Shape::Kafka));
    [&single[..], &ndjson, &kafka].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_batches_have_several_items() {
        let cases = suite(50);
        assert_eq!(cases.len(), 8);
        let batches = cases.iter().filter(|case| case.items == 50);
        assert_eq!(batches.count(), 2);
        assert_eq!(cases[3].to_string(), "20,000/s, NDJSON of 50");
        assert_eq!(cases[7].to_string(), "20,000/s, straight to Kafka");
    }
}
