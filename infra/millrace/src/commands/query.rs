//! `millrace query`.

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Args;
use millrace_http::Limits;
use millrace_query::{Options, Query};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::{Admin, Database, Listen, bind};
use crate::{admin, shutdown, telemetry};

/// The ports where none are set.
pub const PORT: u16 = 8081;
const ADMIN_PORT: u16 = 9467;

/// Flags of `millrace query`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads schema reports as role millrace_reader, so its database user needs no more than that role. Every \
statement is ended after 5 seconds. Any number of replicas may run; the database may be away at any time.

Example:
  millrace query --database-url postgres://millrace@db/millrace
  curl http://127.0.0.1:8081/v1/accounts/alice      (the console is at http://127.0.0.1:8081/)"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    admin: Admin,
    /// The most connections to the database, 2 to 1000.
    #[arg(
        long,
        env = "MILLRACE_QUERY_CONNECTIONS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(2..=1_000)
    )]
    connections: u32,
}

/// Runs until asked to stop.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let admin_address = flags.admin.address(ADMIN_PORT)?;
    let address = flags.listen.address(PORT, &flags.admin)?;
    let metrics = telemetry::init_metrics()?;
    let query = Query::new(Options {
        database: flags.database.database_url,
        connections_max: flags.connections,
    });
    let listener = bind(address, "", "--listen").await?;
    let stop = CancellationToken::new();
    let asked = query.clone();
    let readiness: admin::Readiness = Arc::new(move || {
        let query = asked.clone();
        Box::pin(async move { query.readiness().await })
    });
    let server = admin::serve(
        admin_address,
        metrics,
        readiness,
        Router::new(),
        stop.clone(),
    )
    .await?;
    info!("query: http://{}/", listener.local_addr()?);

    let serving = millrace_http::serve(listener, query.router(), Limits::default(), stop.clone());
    let ((), requested) = tokio::join!(serving, shutdown::passed_on(&stop));
    requested?;
    query.close().await;
    server.join_all().await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}
