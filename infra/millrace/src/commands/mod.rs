//! One file per subcommand.

use std::process::ExitCode;

use crate::cli::Command;

pub mod accounts;
pub mod checkpoint;
pub mod dev;
pub mod export;
pub mod gateway;
pub mod generate;
pub mod import;
pub mod ledger;
pub mod migrate;
pub mod parked;
pub mod positions;
pub mod project;
pub mod query;
pub mod sim;
pub mod topics;
pub mod verify;

/// Runs a subcommand to its end.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(flags) => dev::run(flags).await,
        Command::Gateway(flags) => gateway::run(flags).await,
        Command::Migrate(flags) => migrate::run(&flags).await,
        Command::Topics(topics) => topics::run(&topics).await,
        Command::Ledger(flags) => ledger::run(flags).await,
        Command::Project(flags) => project::run(flags).await,
        Command::Query(flags) => query::run(flags).await,
        Command::Import(flags) => import::run(flags).await,
        Command::Generate(flags) => generate::run(flags).await,
        Command::Positions(positions) => positions::run(&positions).await,
        Command::Parked(parked) => parked::run(&parked).await,
        Command::Accounts(accounts) => accounts::run(&accounts).await,
        Command::Sim(flags) => sim::run(flags).await,
        Command::Verify(flags) => verify::run(&flags).await,
        Command::Export(flags) => export::run(&flags).await,
        Command::Checkpoint(checkpoint) => checkpoint::run(&checkpoint).await,
    }
}
