//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser};
use millrace_benches::saved::Saved;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// Reads the query API as fast as it answers, without ingest and beside it.
#[derive(Debug, Clone, Parser)]
#[command(
    after_help = "One database and one topic for all: a ledger is filled, then ingest is measured without readers, then each
endpoint without ingest and beside a full drain of --count transactions, then ingest without readers again.
benches/query.sh builds everything, and starts servers where none are given.

Examples:
  query
  query --endpoint account,mix --connections 16
  query --preload 100000 --count 200000 --seconds 3
  query --report benches/results/query.jsonl
  query --plot target/plots benches/results/query.jsonl"
)]
pub struct Cli {
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, env = "MILLRACE_BROKERS", required_unless_present_any = ["report", "plot"])]
    pub brokers: Option<String>,
    /// Postgres connection URL of a user who may create databases.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        required_unless_present_any = ["report", "plot"]
    )]
    pub database_url: Option<String>,
    /// The `millrace` to measure [default: the one beside this program].
    #[arg(long)]
    pub millrace: Option<PathBuf>,
    /// Where each window's figures and conditions are appended, one JSON object a line.
    #[arg(long, default_value = "target/results/query.jsonl")]
    pub results: PathBuf,
    #[command(flatten)]
    pub saved: Saved,
    /// What is asked for, one after the other [default: each].
    #[arg(long, value_enum, value_delimiter = ',')]
    endpoint: Vec<Endpoint>,
    #[command(flatten)]
    pub settings: Settings,
}

/// What is the same for all windows.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Settings {
    /// Transactions in the ledger before, spread over 30 days.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(30..))]
    pub preload: u64,
    /// Transactions of each ingest.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub count: u64,
    /// Seconds of each window without ingest.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Readers: connections to the query API.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Accounts that move money.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub accounts: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Lanes of the one ledger.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub lanes: u32,
}

impl Cli {
    /// What to ask for.
    pub fn endpoints(&self) -> &[Endpoint] {
        match &self.endpoint[..] {
            [] => &Endpoint::ALL,
            chosen => chosen,
        }
    }
}
