//! The flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Posts transactions at a fixed rate and measures until they are accepted, and until they are visible.
#[derive(Debug, Clone, Parser)]
#[command(
    after_help = "benches/latency.sh starts the services first; these are its flags too.

Examples:
  latency --gateway 127.0.0.1:8080 --query 127.0.0.1:8081
  latency --gateway 127.0.0.1:8080 --query 127.0.0.1:8081 --items 100 --format ndjson --rate 10000"
)]
pub struct Cli {
    /// Where transactions are posted, host:port.
    #[arg(long)]
    pub gateway: SocketAddr,
    /// Where they are looked for, host:port.
    #[arg(long)]
    pub query: SocketAddr,
    /// The database behind them, to count what is posted.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Transactions per second that are offered.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Transactions in a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub items: u32,
    /// How they are written: json is one object, or an array of several.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Seconds before, which are not.
    #[arg(long, default_value_t = 5)]
    pub warmup: u32,
    /// Connections to the gateway.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Every how many-th request is looked for.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub look_every: u32,
    /// Accounts that move money.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub accounts: u32,
    /// What the services run on, for the record.
    #[arg(long, default_value = "kafka")]
    pub servers: String,
    /// Where the figures are appended, one JSON object a line.
    #[arg(long, default_value = "benches/results/runs-latency.jsonl")]
    pub results: PathBuf,
}

/// The media type of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/x-ndjson`
    Ndjson,
}

impl Format {
    /// As the header has it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}
