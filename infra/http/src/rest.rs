//! What a handler has left of a request's body.
//!
//! A server that answers early and closes leaves unread bytes in the socket: the kernel then resets the
//! connection, and a client that was still sending may never see the answer (RFC 9112, 9.6).

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// The most that is read to be thrown away: as much as the largest body that any service takes.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long that may take; a slower client finds its connection reset.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A body that handler and server share, one after the other.
#[derive(Clone)]
pub(crate) struct Rest(Arc<Mutex<Shared>>);

struct Shared {
    body: Body,
    /// Somebody has asked for bytes: a client that waits for `100 Continue` has got it.
    is_begun: bool,
}

impl Rest {
    pub(crate) fn of(body: Body) -> Self {
        let is_begun = false;
        Self(Arc::new(Mutex::new(Shared { body, is_begun })))
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.shared().is_begun
    }

    /// Reads and forgets what the handler did not read, within bounds.
    pub(crate) async fn drain(mut self) {
        if self.is_end_stream() {
            return;
        }
        let draining = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = self.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > BYTES_MAX {
                    return;
                }
            }
        };
        // Either way the answer is next.
        let _ = tokio::time::timeout(TIMEOUT, draining).await;
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut shared = self.shared();
        shared.is_begun = true;
        Pin::new(&mut shared.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.shared().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.shared().body.size_hint()
    }
}
