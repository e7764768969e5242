//! The handles that count requests and items.

use std::time::Instant;

use axum::http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use millrace_metrics::{
    GATEWAY_BUFFERED, GATEWAY_ITEMS, GATEWAY_PENDING, GATEWAY_REQUEST, GATEWAY_REQUESTS,
};

use crate::collector::Results;

/// Looked up once: an item costs no label and no allocation.
pub(crate) struct Meters {
    accepted: Counter,
    rejected: Counter,
    unacknowledged: Counter,
    pub(crate) pending: Gauge,
    pub(crate) buffered: Gauge,
    seconds: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let items = |result| metrics::counter!(GATEWAY_ITEMS, "result" => result);
        Self {
            accepted: items("accepted"),
            rejected: items("rejected"),
            unacknowledged: items("unacknowledged"),
            pending: metrics::gauge!(GATEWAY_PENDING),
            buffered: metrics::gauge!(GATEWAY_BUFFERED),
            seconds: metrics::histogram!(GATEWAY_REQUEST),
        }
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> RequestMeter {
        RequestMeter {
            began: Instant::now(),
            result: "abandoned",
            seconds: self.seconds.clone(),
        }
    }

    pub(crate) fn count_rejected(&self) {
        self.rejected.increment(1);
    }

    pub(crate) fn count(&self, results: &Results) {
        self.accepted.increment(results.accepted as u64);
        self.rejected.increment(results.rejected as u64);
        self.unacknowledged
            .increment(results.unacknowledged() as u64);
    }
}

/// Counts a request when it ends, also one whose client goes away.
pub(crate) struct RequestMeter {
    began: Instant,
    result: &'static str,
    seconds: Histogram,
}

impl RequestMeter {
    pub(crate) fn answered(mut self, status: StatusCode) {
        self.result = match status {
            StatusCode::ACCEPTED => "accepted",
            StatusCode::MULTI_STATUS => "mixed",
            StatusCode::TOO_MANY_REQUESTS => "throttled",
            status if status.is_server_error() => "unavailable",
            _ => "refused",
        };
    }
}

impl Drop for RequestMeter {
    fn drop(&mut self) {
        metrics::counter!(GATEWAY_REQUESTS, "result" => self.result).increment(1);
        self.seconds.record(self.began.elapsed());
    }
}
