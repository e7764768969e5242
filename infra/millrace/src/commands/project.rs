//! `millrace project`.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use axum::Router;
use clap::Args;
use millrace_readmodels::{Database as Reached, Options, Status};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::{Admin, Database, at_least_one};
use crate::{admin, shutdown, telemetry};

/// The admin port where none is set.
const ADMIN_PORT: u16 = 9466;

/// Flags of `millrace project`.
#[derive(Debug, Args)]
#[command(
    after_help = "Workers take whatever lags behind, the furthest first; any number of replicas may run. The \
further behind, the larger and cheaper the range. SIGTERM finishes the fold in hand.

Example:
  millrace project --database-url postgres://millrace@db/millrace --workers 2"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    admin: Admin,
    /// How many folds run at a time, with a database connection each.
    #[arg(long, env = "MILLRACE_WORKERS", default_value = "1", value_parser = at_least_one)]
    workers: NonZeroUsize,
}

/// Runs until asked to stop.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let address = flags.admin.address(ADMIN_PORT)?;
    let options = Options {
        database: flags.database.database_url,
        workers: flags.workers,
    };
    let metrics = telemetry::init_metrics()?;
    let (sender, receiver) = watch::channel(Status::default());
    let stop = CancellationToken::new();
    let readiness = readiness(receiver);
    let server = admin::serve(address, metrics, readiness, Router::new(), stop.clone()).await?;
    info!(workers = options.workers, "project");

    let workers = millrace_readmodels::run(options, sender, stop.clone());
    let ((), requested) = tokio::join!(workers, shutdown::passed_on(&stop));
    requested?;
    server.join_all().await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn readiness(status: watch::Receiver<Status>) -> admin::Readiness {
    admin::known(move || {
        let status = status.borrow();
        (status.is_ready(), describe(&status))
    })
}

fn describe(status: &Status) -> Value {
    let models: Vec<_> = status
        .models
        .iter()
        .map(|model| {
            let failed = model.failed.iter();
            let failed =
                failed.map(|(partition, error)| json!({"partition": partition, "error": error}));
            json!({
                "model": model.model,
                "lag_seqs": model.lag_seqs,
                "failed": failed.collect::<Vec<_>>(),
            })
        })
        .collect();
    let problem = match &status.database {
        Reached::Up => None,
        Reached::Connecting => Some("connecting to the database".to_owned()),
        Reached::Away(error) => Some(format!("the database: {error}")),
    };
    json!({"ready": status.is_ready(), "problems": problem.into_iter().collect::<Vec<_>>(), "models": models})
}
