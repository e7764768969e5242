//! `millrace gateway`.

use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use clap::Args;
use millrace_gateway::{Gateway, Limits, Options};
use millrace_publisher::{Error, Settings};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::{Admin, Kafka, Listen, Usage, bind};
use crate::{admin, shutdown, telemetry};

/// The ports where none are set.
pub const PORT: u16 = 8080;
pub const ADMIN_PORT: u16 = 9464;

/// How long Kafka may take for what was handed in before the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Flags of `millrace gateway`.
#[derive(Debug, Args)]
#[command(
    after_help = "POST /v1/transactions takes a JSON object, an array or NDJSON, and answers 202 once every in-sync replica \
has every record. Sending the same again is safe. Any number of replicas may run; Kafka may be away at any \
time: clients are told 503. SIGTERM ends the requests in hand first.

Example:
  millrace gateway --brokers kafka:9092
  curl http://127.0.0.1:8080/v1/transactions -H 'content-type: application/json' -d @transaction.json"
)]
pub struct Flags {
    #[command(flatten)]
    kafka: Kafka,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    admin: Admin,
}

/// Runs until asked to stop.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let admin_address = flags.admin.address(ADMIN_PORT)?;
    let address = flags.listen.address(PORT, &flags.admin)?;
    let options = Options {
        publisher: Settings {
            properties: Kafka::properties()?,
            ..Settings::new(&flags.kafka.brokers, &flags.kafka.topic)
        },
        limits: Limits::default(),
    };
    let metrics = telemetry::init_metrics()?;
    let started = Gateway::start(options).await;
    let (gateway, connection) = started.map_err(|error| match error {
        Error::Settings(why) => anyhow::Error::from(Usage(format!("Kafka settings: {why}"))),
        other => other.into(),
    })?;
    let listener = bind(address, "", "--listen").await?;
    let stop = CancellationToken::new();
    let asked = gateway.clone();
    let readiness = admin::known(move || {
        let (ready, mut detail) = asked.readiness();
        detail["ready"] = ready.into();
        (ready, detail)
    });
    let server = admin::serve(
        admin_address,
        metrics,
        readiness,
        Router::new(),
        stop.clone(),
    )
    .await?;
    info!("gateway: http://{}/v1/transactions", listener.local_addr()?);

    let router = millrace_gateway::router(gateway.clone());
    let serving = millrace_http::serve(
        listener,
        router,
        millrace_http::Limits::default(),
        stop.clone(),
    );
    let ((), requested) = tokio::join!(serving, shutdown::passed_on(&stop));
    requested?;
    if tokio::time::timeout(DRAIN_TIMEOUT, gateway.drain())
        .await
        .is_err()
    {
        warn!("kafka has not acknowledged everything in time; no client was told that it has");
    }
    drop((gateway, connection));
    server.join_all().await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}
