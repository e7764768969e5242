//! The body as it arrives: size, time, memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use metrics::Gauge;
use millrace_http::Problem;
use tokio::time::{Instant, timeout_at};

use crate::Limits;
use crate::answer;

/// The bytes that all bodies may take together.
pub(crate) struct Memory {
    used: AtomicUsize,
    bytes_max: usize,
    gauge: Gauge,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            bytes_max,
            gauge,
        })
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.bytes_max {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes in memory are below 2^52")]
        self.gauge.increment(bytes as f64);
        true
    }

    fn remove(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "bytes in memory are below 2^52")]
        self.gauge.decrement(bytes as f64);
    }
}

/// One body. Its bytes count until they are released or this is dropped.
pub(crate) struct Upload {
    body: Body,
    bytes_max: usize,
    received: usize,
    held: usize,
    memory: Arc<Memory>,
    pause_max: Duration,
    deadline: Instant,
}

impl Upload {
    /// Refuses at once what says itself that it is too large.
    pub(crate) fn new(
        body: Body,
        bytes_max: usize,
        limits: &Limits,
        memory: &Arc<Memory>,
    ) -> Result<Self, Problem> {
        if usize::try_from(body.size_hint().lower()).is_ok_and(|size| size <= bytes_max) {
            Ok(Self {
                body,
                bytes_max,
                received: 0,
                held: 0,
                memory: Arc::clone(memory),
                pause_max: limits.body_timeout,
                deadline: Instant::now() + limits.request_timeout,
            })
        } else {
            Err(answer::body_too_large(bytes_max))
        }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        // What has already arrived is always in time for the pause.
        if Instant::now() >= self.deadline {
            return Err(answer::body_timeout());
        }
        let until = self.deadline.min(Instant::now() + self.pause_max);
        loop {
            let frame = match timeout_at(until, self.body.frame()).await {
                Err(_) => return Err(answer::body_timeout()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(answer::body_incomplete(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(chunk) if !chunk.is_empty() => return self.hold(chunk).map(Some),
                // Trailers, and what is no byte.
                _ => {}
            }
        }
    }

    /// All bytes.
    pub(crate) async fn whole(&mut self) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// All but the last `bytes` were worked off.
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.memory.remove(self.held.saturating_sub(bytes));
        self.held = self.held.min(bytes);
    }

    fn hold(&mut self, chunk: Bytes) -> Result<Bytes, Problem> {
        self.received += chunk.len();
        if self.received > self.bytes_max {
            return Err(answer::body_too_large(self.bytes_max));
        }
        if !self.memory.add(chunk.len()) {
            return Err(answer::busy());
        }
        self.held += chunk.len();
        Ok(chunk)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.memory.remove(self.held);
    }
}
