//! The admin port: `/metrics`, `/livez`, `/readyz`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use metrics_exporter_prometheus::PrometheusHandle;
use millrace_http::{Limits, Problem};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::bind;

/// Whether the service does what it should, and the detail as JSON.
pub type Readiness = Arc<dyn Fn() -> Answer + Send + Sync>;

/// What a [`Readiness`] gives.
pub type Answer = Pin<Box<dyn Future<Output = (bool, Value)> + Send>>;

/// A readiness that is known without asking anybody.
pub fn known(readiness: impl Fn() -> (bool, Value) + Send + Sync + 'static) -> Readiness {
    Arc::new(move || Box::pin(std::future::ready(readiness())))
}

#[derive(Clone)]
struct Parts {
    metrics: PrometheusHandle,
    readiness: Readiness,
}

/// How often the exporter tidies its histograms.
const UPKEEP: Duration = Duration::from_secs(5);

/// Binds the port and serves its pages, and `more`, until `stop`. The address is logged, for port 0 picks a free one.
pub async fn serve(
    address: SocketAddr,
    metrics: PrometheusHandle,
    readiness: Readiness,
    more: Router,
    stop: CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let listener = bind(address, "the admin port ", "--admin-listen").await?;
    let bound = listener.local_addr()?;
    tracing::info!("admin port: http://{bound}/metrics, /livez and /readyz");
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_up(metrics.clone(), stop.clone()));
    let router = router(metrics, readiness).merge(more);
    tasks.spawn(millrace_http::serve(
        listener,
        router,
        Limits::default(),
        stop,
    ));
    Ok(tasks)
}

/// The pages.
pub fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(show_readiness))
        .route("/", any(show_nothing))
        .route("/{*path}", any(show_nothing))
        .with_state(Parts { metrics, readiness })
}

/// Tidies the exporter's histograms until the stop.
pub async fn keep_up(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut turn = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(turn.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

async fn show_nothing(uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(200).collect();
    let detail = format!(
        "there is nothing at {shown}; the admin port has /metrics, /livez and /readyz, and the ledger's \
         /parked, /parked/PARTITION/OFFSET, /parked/replay and /parked/discard"
    );
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn show_metrics(State(parts): State<Parts>) -> Response {
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (text, parts.metrics.render()).into_response()
}

async fn show_readiness(State(parts): State<Parts>) -> Response {
    let (ready, detail) = (parts.readiness)().await;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(detail)).into_response()
}
