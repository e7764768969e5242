//! What to run, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::faults::Kind;

/// The most replicas at once: each has its own way to the servers.
pub const REPLICAS_MAX: usize = 4;

/// One run.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How long faults are made.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// Which faults, when and to whom; which transactions.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Replicas of the ledger at the start; faults add and remove some, between 1 and 4.
    #[arg(long, default_value_t = 3, value_parser = replicas)]
    pub replicas: usize,
    /// Transactions per second.
    #[arg(long, default_value_t = 5_000.0, value_name = "TX/S")]
    pub rate: f64,
    /// Faults per minute, if recovery leaves time for as many.
    #[arg(long, default_value_t = 6.0, value_name = "F")]
    pub faults_per_minute: f64,
    /// After how long without a heartbeat a replica's partitions are given to others.
    #[arg(long, default_value_t = 6_000, value_name = "MS")]
    pub session_timeout_ms: u32,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12)]
    pub partitions: i32,
    /// Accounts that money moves between.
    #[arg(long, default_value_t = 10_000)]
    pub accounts: u64,
    /// Which kinds of faults [default: all].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,..", default_values_t = Kind::all(), hide_default_value = true)]
    pub kinds: Vec<Kind>,
    /// Each kind of fault once, and no more.
    #[arg(long)]
    pub each_once: bool,
    /// Instead of random faults: those that have a target, this often each, with session timeouts of 6 s and 3 s.
    #[arg(long, value_name = "TIMES")]
    pub recovery: Option<u32>,
    /// Where figures and conditions are appended, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// The servers: a directory of `infra/local/up.sh --ways 4`.
    #[arg(long, value_name = "DIR")]
    pub servers: PathBuf,
    /// The `millrace` to run.
    #[arg(long, value_name = "FILE")]
    pub millrace: PathBuf,
}

impl Options {
    /// The session timeout.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms.into())
    }

    /// How long faults are made.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

fn replicas(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=REPLICAS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("not 1 to {REPLICAS_MAX}")),
    }
}
