//! Every metric of Millrace: name, unit and help text. No other crate names one.
//!
//! Names are `millrace_<subsystem>_<thing>_<unit>[_total]`; labels are `partition`, `verdict`, `reason`,
//! `stage`, `model` and `result`, never an id or an account.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Published records with a final answer; label `result`: `acknowledged` or `failed`.
pub const PUBLISHER_RECORDS: &str = "millrace_publisher_records_total";
/// Published records without an answer yet.
pub const PUBLISHER_IN_FLIGHT: &str = "millrace_publisher_in_flight_records";
/// From handing in a record to its acknowledgement.
pub const PUBLISHER_DELIVERY: &str = "millrace_publisher_delivery_seconds";

/// Requests with transactions; label `result`: `accepted`, `mixed`, `refused`, `throttled`,
/// `unavailable` or `abandoned`.
pub const GATEWAY_REQUESTS: &str = "millrace_gateway_requests_total";
/// Transactions handed in over HTTP; label `result`: `accepted`, `rejected` or `unacknowledged`.
pub const GATEWAY_ITEMS: &str = "millrace_gateway_items_total";
/// Transactions that were handed to Kafka and not answered yet.
pub const GATEWAY_PENDING: &str = "millrace_gateway_pending_items";
/// Bytes of request bodies in memory.
pub const GATEWAY_BUFFERED: &str = "millrace_gateway_buffered_bytes";
/// From a request's head to its answer.
pub const GATEWAY_REQUEST: &str = "millrace_gateway_request_seconds";

/// Records by what became of them; labels `partition`, `verdict`.
pub const LEDGER_RECORDS: &str = "millrace_ledger_records_total";
/// Log offsets without a record; label `partition`.
pub const LEDGER_SKIPPED: &str = "millrace_ledger_skipped_offsets_total";
/// Rejected and refused records; label `reason`.
pub const LEDGER_REJECTED: &str = "millrace_ledger_rejections_total";
/// Records in a batch.
pub const LEDGER_BATCH: &str = "millrace_ledger_batch_records";
/// Time of each phase of a batch; label `stage`.
pub const LEDGER_STAGE: &str = "millrace_ledger_stage_seconds";
/// Batches that met another owner's position.
pub const LEDGER_FENCED: &str = "millrace_ledger_fenced_batches_total";
/// Connections of frozen owners that were ended.
pub const LEDGER_FROZEN: &str = "millrace_ledger_frozen_owners_ended_total";
/// Records applied after a later one of their key, or twice: must stay 0.
pub const LEDGER_DISORDER: &str = "millrace_ledger_order_violations_total";
/// Partitions begun anew because they did not get on.
pub const LEDGER_RESTARTED: &str = "millrace_ledger_restarted_partitions_total";
/// Whether a partition has records to apply and does not get on; label `partition`.
pub const LEDGER_STALLED: &str = "millrace_ledger_partition_stalled";
/// Batches decided afresh because another transaction was in the way.
pub const LEDGER_RETRIED: &str = "millrace_ledger_retried_batches_total";
/// The next offset to apply; label `partition`.
pub const LEDGER_POSITION: &str = "millrace_ledger_position_offset";
/// The offset after the last committed record; label `partition`.
pub const LEDGER_LOG_END: &str = "millrace_ledger_log_end_offset";
/// Age of the oldest unapplied record; label `partition`.
pub const LEDGER_LAG: &str = "millrace_ledger_lag_seconds";
/// 1 for an active partition, 0 for one that waits; label `partition`.
pub const LEDGER_ACTIVE: &str = "millrace_ledger_partition_active";

/// Folds that worked; label `model`.
pub const READMODEL_FOLDS: &str = "millrace_readmodel_folds_total";
/// Slices written; label `model`.
pub const READMODEL_ROWS: &str = "millrace_readmodel_rows_total";
/// Outcomes folded; label `model`.
pub const READMODEL_SEQS: &str = "millrace_readmodel_seqs_total";
/// Outcomes that are not folded yet; label `model`.
pub const READMODEL_LAG: &str = "millrace_readmodel_lag_seqs";
/// Time of a fold; label `model`.
pub const READMODEL_FOLD: &str = "millrace_readmodel_fold_seconds";
/// Folds that failed, once per partition; label `model`.
pub const READMODEL_FAILURES: &str = "millrace_readmodel_failures_total";

const COUNTERS: [(&str, &str); 15] = [
    (
        PUBLISHER_RECORDS,
        "Records with a final answer from Kafka, by result.",
    ),
    (
        GATEWAY_REQUESTS,
        "HTTP requests with transactions, by result.",
    ),
    (GATEWAY_ITEMS, "Transactions in HTTP requests, by result."),
    (LEDGER_RECORDS, "Records by partition and verdict."),
    (LEDGER_SKIPPED, "Log offsets without a record."),
    (LEDGER_REJECTED, "Rejected records by reason."),
    (LEDGER_FENCED, "Batches that met another owner's position."),
    (
        LEDGER_FROZEN,
        "Connections of frozen owners that were ended.",
    ),
    (
        LEDGER_DISORDER,
        "Records applied after a later one of their key, or twice: must stay 0.",
    ),
    (
        LEDGER_RESTARTED,
        "Partitions begun anew because they did not get on.",
    ),
    (LEDGER_RETRIED, "Batches decided afresh after a conflict."),
    (READMODEL_FOLDS, "Folds of a read model that worked."),
    (READMODEL_ROWS, "Slices written to a read model's table."),
    (
        READMODEL_SEQS,
        "Stored outcomes that a read model has folded.",
    ),
    (
        READMODEL_FAILURES,
        "Folds of a read model that failed, per partition.",
    ),
];

const GAUGES: [(&str, Unit, &str); 9] = [
    (
        PUBLISHER_IN_FLIGHT,
        Unit::Count,
        "Records that Kafka has not answered yet.",
    ),
    (
        GATEWAY_PENDING,
        Unit::Count,
        "Transactions from HTTP that Kafka has not answered yet.",
    ),
    (
        GATEWAY_BUFFERED,
        Unit::Bytes,
        "Bytes of HTTP request bodies in memory.",
    ),
    (
        LEDGER_STALLED,
        Unit::Count,
        "Whether a partition has records to apply and does not get on.",
    ),
    (
        LEDGER_POSITION,
        Unit::Count,
        "The next log offset to apply.",
    ),
    (
        LEDGER_LOG_END,
        Unit::Count,
        "The offset after the last committed record.",
    ),
    (
        LEDGER_LAG,
        Unit::Seconds,
        "Age of the oldest unapplied record.",
    ),
    (
        LEDGER_ACTIVE,
        Unit::Count,
        "1 for an active partition, 0 for one that waits.",
    ),
    (
        READMODEL_LAG,
        Unit::Count,
        "Stored outcomes that a read model has not folded yet.",
    ),
];

const HISTOGRAMS: [(&str, Unit, &str); 5] = [
    (
        PUBLISHER_DELIVERY,
        Unit::Seconds,
        "Time from handing in a record to its acknowledgement.",
    ),
    (
        GATEWAY_REQUEST,
        Unit::Seconds,
        "Time from the head of an HTTP request to its answer.",
    ),
    (LEDGER_BATCH, Unit::Count, "Records in a batch."),
    (
        LEDGER_STAGE,
        Unit::Seconds,
        "Time of each phase of a batch.",
    ),
    (READMODEL_FOLD, Unit::Seconds, "Time of a fold."),
];

/// Tells the process's recorder units and help texts; call it once, after the recorder is set.
pub fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, Unit::Count, help);
    }
    for (name, unit, help) in GAUGES {
        describe_gauge!(name, unit, help);
    }
    for (name, unit, help) in HISTOGRAMS {
        describe_histogram!(name, unit, help);
    }
}
