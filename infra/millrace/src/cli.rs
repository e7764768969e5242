//! The command line and the environment. Everything is checked before anything is opened or bound.
//!
//! | module | holds |
//! |---|---|
//! | [`flags`] | flags that several commands share, and what they connect to |
//! | [`values`] | what values of flags must be |
//! | [`ends`] | what the process ends with when it was used wrongly or failed |
//! | [`print`] | writing to the person at the terminal |

mod ends;
mod flags;
mod print;
mod values;

use std::ffi::OsString;

use clap::{Parser, Subcommand, ValueEnum};

pub use ends::{Usage, fail, refuse};
pub use flags::{Admin, Database, Kafka, Listen, Operator, TOPIC, bind, connect};
pub use print::{eprint, print, print_raw, printable};
pub use values::{at_least_one, brokers, database_url, duration, reason};

use crate::commands::{
    accounts, checkpoint, dev, export, gateway, generate, import, ledger, migrate, parked,
    positions, project, query, sim, topics, verify,
};
use values::log_filter;

/// Event-driven transaction processing: from Kafka into Postgres, exactly once.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
#[command(after_help = "Examples:
  millrace dev
  millrace migrate && millrace topics create --partitions 12
  millrace ledger &
  millrace project &
  millrace import bank.csv.gz --map bank.toml
  psql \"$DATABASE_URL\" -c 'select * from reports.balances limit 10'
  millrace verify

Any librdkafka property can be set by environment: MILLRACE_KAFKA_SECURITY_PROTOCOL=SASL_SSL \
sets security.protocol.")]
pub struct Cli {
    /// How log lines look.
    #[arg(
        long,
        global = true,
        env = "MILLRACE_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// Which log lines are written, as in `RUST_LOG`: info, debug, `millrace_ledger=debug,info` [default: info;
    /// of dev: warn; of sim: its own].
    #[arg(long, global = true, env = "MILLRACE_LOG", value_parser = log_filter)]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// Reads the command line. Without a command it is `dev`.
    pub fn read() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        if cli.command.is_some() {
            return Ok(cli);
        }
        Self::try_parse_from(std::env::args_os().chain([OsString::from("dev")]))
    }

    /// Which log lines are written.
    pub fn log(&self) -> &str {
        // What dev prints is for a person, who reads of trouble only.
        let default = match self.command {
            None | Some(Command::Dev(_)) => "warn",
            // What the simulated lanes say is of no trouble of anybody's.
            Some(Command::Sim(_)) => "off,millrace::commands=info",
            _ => "info",
        };
        self.log.as_deref().unwrap_or(default)
    }

    /// What to do.
    pub fn into_command(self) -> Command {
        self.command.expect("the command line was read with one")
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, on an in-memory broker and a private Postgres (the default).
    Dev(dev::Flags),
    /// Serve the HTTP API that takes transactions.
    Gateway(gateway::Flags),
    /// Create or upgrade the database.
    Migrate(migrate::Flags),
    /// Create the topic, or check that it is as it must be.
    #[command(subcommand)]
    Topics(topics::Topics),
    /// Run the ledger group: validate, persist and project transactions.
    Ledger(ledger::Flags),
    /// Run the background workers that bring read models up to date.
    Project(project::Flags),
    /// Serve the query API and the console.
    Query(query::Flags),
    /// Publish a file of transactions: CSV with a mapping, NDJSON or Avro.
    Import(import::Flags),
    /// Publish synthetic transactions.
    Generate(generate::Flags),
    /// Set or show what accounts may do.
    #[command(subcommand)]
    Accounts(accounts::Accounts),
    /// List, show, replay or discard records that wait for an operator.
    #[command(subcommand)]
    Parked(parked::Parked),
    /// Show where partitions stand, or accept that log and database do not fit.
    #[command(subcommand)]
    Positions(positions::Positions),
    /// Simulate the ledger group under faults, from a seed.
    Sim(sim::Flags),
    /// Prove that nothing was lost, counted twice or changed.
    Verify(verify::Flags),
    /// Write the whole ledger to a file, in the order of its hash chains.
    Export(export::Flags),
    /// Mark where the hash chains are, sign it, and check later that nothing before it has changed.
    #[command(subcommand)]
    Checkpoint(checkpoint::Checkpoints),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_values_are_refused() {
        for bad in [
            &["millrace", "ledger", "--brokers", "nowhere"][..],
            &["millrace", "ledger", "--topic", "a b"],
            &["millrace", "ledger", "--lanes", "0"],
            &["millrace", "ledger", "--drain-timeout", "20"],
            &["millrace", "ledger", "--park-brake-percent", "0"],
            &["millrace", "ledger", "--database-url", "mysql://x"],
            &["millrace", "ledger", "--admin-listen", "9465"],
            &["millrace", "ledger", "--log", "millrace=loud"],
            &["millrace", "nothing"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
