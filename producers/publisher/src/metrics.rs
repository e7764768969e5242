//! The handles that count one publisher's records.

use metrics::{Counter, Gauge, Histogram};
use millrace_metrics::{PUBLISHER_DELIVERY, PUBLISHER_IN_FLIGHT, PUBLISHER_RECORDS};

/// The handles of one publisher, looked up once: a record costs no label and no allocation.
pub(crate) struct Meters {
    pub(crate) acknowledged: Counter,
    pub(crate) failed: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) delivery_seconds: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: metrics::counter!(PUBLISHER_RECORDS, "result" => "acknowledged"),
            failed: metrics::counter!(PUBLISHER_RECORDS, "result" => "failed"),
            in_flight: metrics::gauge!(PUBLISHER_IN_FLIGHT),
            delivery_seconds: metrics::histogram!(PUBLISHER_DELIVERY),
        }
    }
}
