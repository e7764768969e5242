//! Names, units and help texts of this crate's metrics, and the handles that count them.

use metrics::{Counter, Gauge, Histogram, Unit};

/// Records with a final answer, by `result`: `acknowledged` or `failed`.
pub const RECORDS_TOTAL: &str = "millrace_publisher_records_total";
/// Records handed in that have no answer yet.
pub const IN_FLIGHT_RECORDS: &str = "millrace_publisher_in_flight_records";
/// From handing in a record to its acknowledgement.
pub const DELIVERY_SECONDS: &str = "millrace_publisher_delivery_seconds";

/// Registers units and help texts with the process's recorder; call it once the recorder is set.
pub fn describe() {
    metrics::describe_counter!(
        RECORDS_TOTAL,
        Unit::Count,
        "Records with a final answer from Kafka, by result (acknowledged, failed)."
    );
    metrics::describe_gauge!(
        IN_FLIGHT_RECORDS,
        Unit::Count,
        "Records handed in that Kafka has not answered yet."
    );
    metrics::describe_histogram!(
        DELIVERY_SECONDS,
        Unit::Seconds,
        "Time from handing in a record to its acknowledgement by all in-sync replicas."
    );
}

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
            acknowledged: metrics::counter!(RECORDS_TOTAL, "result" => "acknowledged"),
            failed: metrics::counter!(RECORDS_TOTAL, "result" => "failed"),
            in_flight: metrics::gauge!(IN_FLIGHT_RECORDS),
            delivery_seconds: metrics::histogram!(DELIVERY_SECONDS),
        }
    }
}
