//! The flags.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser};
use millrace_benches::saved::Saved;
use serde::{Deserialize, Serialize};

use crate::case::{Case, Shape, suite};

/// The rates of the suite.
const RATES: [u32; 4] = [1_000, 5_000, 10_000, 20_000];

/// Offers transactions at fixed rates and measures until they are accepted, and until they are visible.
#[derive(Debug, Clone, Parser)]
#[command(
    after_help = "Without --shape and --rate the suite is run: single posts at 1,000 and 5,000/s, NDJSON of 100 at 10,000 and
20,000/s, and straight to Kafka at all four. With either of them every shape is offered at every rate.
Each run has a database, a topic and services of its own, and removes them.
benches/open-loop.sh builds everything, and starts servers where none are given.

Examples:
  open-loop
  open-loop --shape single --rate 5000
  open-loop --shape ndjson,array --rate 10000,20000 --items 100 --runs 3
  open-loop --dev --shape single --rate 1000
  open-loop --report benches/results/open-loop.jsonl
  open-loop --plot target/plots benches/results/open-loop.jsonl"
)]
pub struct Cli {
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, env = "MILLRACE_BROKERS", required_unless_present_any = ["report", "plot", "dev"])]
    pub brokers: Option<String>,
    /// Postgres connection URL of a user who may create databases.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        required_unless_present_any = ["report", "plot", "dev"]
    )]
    pub database_url: Option<String>,
    /// Measure `millrace dev` instead: an in-memory broker and a private Postgres. Servers that are named are left alone.
    #[arg(long)]
    pub dev: bool,
    /// The `millrace` to measure [default: the one beside this program].
    #[arg(long)]
    pub millrace: Option<PathBuf>,
    /// Where each run's figures and conditions are appended, one JSON object a line.
    #[arg(long, default_value = "target/results/open-loop.jsonl")]
    pub results: PathBuf,
    #[command(flatten)]
    pub saved: Saved,
    /// How transactions are offered.
    #[arg(long, value_enum, value_delimiter = ',')]
    shape: Vec<Shape>,
    /// Transactions per second that are offered.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    rate: Vec<u32>,
    /// Transactions in a request, where a request has several.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    items: u32,
    /// How often each case is run.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub runs: usize,
    /// Runs before the first that are not kept, of single posts at 5,000/s: a broker that has just been started is
    /// still compiling itself, on the cores that are measured.
    #[arg(long, default_value_t = 2)]
    pub practice: usize,
    #[command(flatten)]
    pub settings: Settings,
}

/// What is the same for all cases.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Settings {
    /// Seconds that are measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Seconds before, which are not.
    #[arg(long, default_value_t = 5)]
    pub warmup: u32,
    /// How many requests, evenly chosen, are looked for in the query API, at least.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Connections to the gateway. What is due while all are busy waits, and that counts.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Accounts that move money.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub accounts: u32,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Lanes of the one ledger.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub lanes: u32,
}

impl Cli {
    /// What to run, once each.
    pub fn cases(&self) -> Vec<Case> {
        if self.shape.is_empty() && self.rate.is_empty() {
            return suite(self.items);
        }
        let shapes: &[_] = match &self.shape[..] {
            [] => &[Shape::Single, Shape::Ndjson, Shape::Kafka],
            shapes => shapes,
        };
        let rates: &[_] = match &self.rate[..] {
            [] => &RATES,
            rates => rates,
        };
        let at_every_rate = |shape| {
            let rates = rates.iter();
            rates.map(move |rate| Case::new(shape, *rate, self.items))
        };
        shapes.iter().copied().flat_map(at_every_rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_offered_at_every_rate() {
        let cases = |flags: &str| {
            let always = "open-loop --dev";
            Cli::parse_from(format!("{always} {flags}").split_whitespace()).cases()
        };
        assert_eq!(cases(""), suite(100));
        assert_eq!(cases("--shape single").len(), 4);
        assert_eq!(cases("--rate 7").len(), 3);
        let chosen = cases("--shape ndjson,kafka --rate 5,6 --items 9");
        let expected = [
            Case::new(Shape::Ndjson, 5, 9),
            Case::new(Shape::Ndjson, 6, 9),
            Case::new(Shape::Kafka, 5, 1),
            Case::new(Shape::Kafka, 6, 1),
        ];
        assert_eq!(chosen, expected);
    }
}
