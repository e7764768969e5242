//! The admin port: `/metrics`, `/livez`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Whether the service does what it should, and the detail as JSON.
pub type Readiness = Arc<dyn Fn() -> (bool, Value) + Send + Sync>;

#[derive(Clone)]
struct Parts {
    metrics: PrometheusHandle,
    readiness: Readiness,
}

/// Binds the port and serves until `stop`. The address is logged, for port 0 picks a free one.
pub async fn serve(
    address: SocketAddr,
    metrics: PrometheusHandle,
    readiness: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>>> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("binding the admin port {address}"))?;
    let bound = listener.local_addr()?;
    tracing::info!("admin port: http://{bound}/metrics, /livez and /readyz");
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(Parts { metrics, readiness });
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .into_future())
}

async fn show_metrics(State(parts): State<Parts>) -> Response {
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (text, parts.metrics.render()).into_response()
}

async fn show_readiness(State(parts): State<Parts>) -> Response {
    let (ready, detail) = (parts.readiness)();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(detail)).into_response()
}
