//! The accept loop: bounded connections, a header timeout, graceful drain.
//!
//! axum's own `serve` has neither a bound nor timeouts: a client that sends its headers a byte a minute,
//! or 100,000 that send nothing, would hold memory for ever.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use crate::Problem;
use crate::rest::Rest;

/// The most bytes of a request's line and headers; also a connection's read buffer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// After a failed accept (no file descriptor is left) something must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; more wait in the listener's backlog.
    pub connections_max: usize,
    /// How long a request's headers may take to arrive, and how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long requests in hand may take after the stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An idle connection costs some 20 KiB: 100 MB in all.
            connections_max: 5_000,
            header_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(15),
        }
    }
}

/// Serves until `stop`, then lets the requests in hand end. A panic is answered with a problem of
/// status 500; so are unknown paths (404) and methods (405).
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let router = with_fallbacks(router).layer(CatchPanicLayer::custom(panicked));
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some((stream, slot)) = accept(&listener, &slots, &stop).await {
        let router = router.clone();
        let service = service_fn(move |request| answer(router.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // What a client does to its connection is no news.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            seconds = limits.drain_timeout.as_secs(),
            "requests have not ended in time: their connections are closed"
        );
    }
}

/// The router with problems for paths and methods that it does not know.
pub fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async |uri: Uri| Problem::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method| {
            Problem::method_not_allowed(method.as_str())
        })
}

/// The next connection and its slot; none after the stop.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    stop.run_until_cancelled(async {
        let slot = Arc::clone(slots).acquire_owned().await;
        let slot = slot.expect("the slots are never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are written whole: waiting to merge packets only delays them.
                    let _ = stream.set_nodelay(true);
                    return (stream, slot);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
    .await
}

async fn answer(router: Router, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let expects = head.headers.contains_key(header::EXPECT);
    let body = Rest::of(Body::new(body));
    let request = Request::from_parts(head, Body::new(body.clone()));
    let answer = router.oneshot(request).await;
    // A client that still waits for `100 Continue` sends nothing after another answer.
    if body.is_begun() || !expects {
        body.drain().await;
    }
    answer
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the layer asks for"
)]
fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned());
    tracing::error!(text, "a request panicked");
    Problem::internal().into_response()
}
