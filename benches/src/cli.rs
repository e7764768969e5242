//! The flags.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use millrace_benches::saved::Saved;

use crate::case::{Case, Parameters};
use crate::suites::{Plan, Suite};

/// Loads transactions into Kafka, drains them into Postgres, and says what that costs.
#[derive(Debug, Parser)]
#[command(
    after_help = "Each run has a database and a topic of its own on the given servers, and drops both.
benches/run.sh builds everything, and starts servers where none are given.

Examples:
  bench --count 100000
  bench --suite canonical --runs 3
  bench --suite rebuild --count 5000000
  bench --report benches/results/flat.jsonl
  bench --plot target/plots benches/results/flat.jsonl benches/results/peers.jsonl"
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
    /// Where each run's figures and conditions are appended, one JSON object a line.
    #[arg(long, default_value = "target/results/bench.jsonl")]
    pub results: PathBuf,
    #[command(flatten)]
    pub saved: Saved,
    /// Many cases at once, with the other flags as their base.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// How often each case is run.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub runs: usize,
    #[command(flatten)]
    base: Parameters,
}

impl Cli {
    /// What to run, once each.
    pub fn plans(&self) -> anyhow::Result<Vec<Plan>> {
        let rows = self.base.existing_rows;
        ensure!(
            rows == 0 || !matches!(self.suite, Some(Suite::Growth)),
            "--existing-rows {rows}: the suite growth has rows of its own before each drain, 5, 10 and 20 times --count"
        );
        Ok(match self.suite {
            None => vec![Plan::Drain(Case::of(&self.base))],
            Some(suite) => suite.plans(&self.base),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(flags: &str) -> anyhow::Result<Vec<Plan>> {
        let servers = "bench --brokers b:1 --database-url postgres://p/d";
        Cli::parse_from(format!("{servers} {flags}").split_whitespace()).plans()
    }

    #[test]
    fn rows_before_are_the_suites_own_where_it_has_some() {
        assert_eq!(plans("--existing-rows 5").unwrap().len(), 1);
        assert_eq!(plans("--suite growth").unwrap().len(), 1);
        let told = plans("--suite growth --existing-rows 5").unwrap_err();
        assert!(told.to_string().contains("--existing-rows 5"), "{told}");
    }
}
