//! Logs and the metrics' recorder.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Buckets of durations, in seconds: from one COPY to a database that hangs.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Buckets of batch sizes, in records.
const RECORDS: [f64; 9] = [1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0];

/// Log lines go to standard error; results of tools go to standard output.
pub fn init_logs(format: LogFormat, filter: &str) {
    // Notices of the server, such as "already exists, skipping", are not news, and neither is a fold or a
    // proof that takes its seconds.
    let quiet = "sqlx::postgres::notice=warn,sqlx::query=error";
    let filter = EnvFilter::new(format!("{quiet},{filter}"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// Installs the Prometheus recorder and tells it what the metrics mean.
pub fn init_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full(millrace_metrics::LEDGER_BATCH.into()),
            &RECORDS,
        )?
        .install_recorder()
        .context("installing the metrics recorder")?;
    millrace_metrics::describe();
    Ok(handle)
}
