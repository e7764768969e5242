//! What a lane counts, once per batch.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use millrace_rules::Reason;

use crate::pipeline::plan::Outcome;
use crate::record::Batch;
use crate::store::PartitionStatus;

/// Counter of records by what became of them; labels `partition`, `verdict`.
pub const RECORDS: &str = "millrace_ledger_records_total";
/// Counter of log offsets without a record; label `partition`.
pub const SKIPPED: &str = "millrace_ledger_skipped_offsets_total";
/// Counter of rejected and refused records; label `reason`.
pub const REJECTED: &str = "millrace_ledger_rejections_total";
/// Histogram of the records in a batch.
pub const BATCH_RECORDS: &str = "millrace_ledger_batch_records";
/// Histogram of the time of each phase of a batch; label `stage`.
pub const STAGE_SECONDS: &str = "millrace_ledger_stage_seconds";
/// Counter of batches that met another owner's position.
pub const FENCED: &str = "millrace_ledger_fenced_batches_total";
/// Counter of batches decided afresh because another transaction was in the way.
pub const RETRIED: &str = "millrace_ledger_retried_batches_total";
/// Gauge: the next offset to apply; label `partition`.
pub const POSITION: &str = "millrace_ledger_position_offset";
/// Gauge: the offset after the last committed record; label `partition`.
pub const LOG_END: &str = "millrace_ledger_log_end_offset";
/// Gauge: age of the oldest unapplied record; label `partition`.
pub const LAG_SECONDS: &str = "millrace_ledger_lag_seconds";
/// Gauge: 1 for an active partition, 0 for one that waits; label `partition`.
pub const ACTIVE: &str = "millrace_ledger_partition_active";
/// Times the phases of one batch.
pub(crate) struct Stage(Duration);

impl Stage {
    pub(crate) fn begin(now: Duration) -> Self {
        Self(now)
    }

    pub(crate) fn end(&mut self, stage: &'static str, now: Duration) {
        histogram!(STAGE_SECONDS, "stage" => stage).record(now.saturating_sub(self.0));
        self.0 = now;
    }
}

pub(crate) fn batch(outcome: &Outcome<'_>, batch: &Batch<'_>) {
    #[expect(clippy::cast_precision_loss, reason = "a batch has few records")]
    histogram!(BATCH_RECORDS).record(batch.len() as f64);
    for advance in &outcome.advances {
        let numbers = &advance.numbers;
        let partition = numbers.partition.to_string();
        for (verdict, count) in [
            ("posted", numbers.posted),
            ("duplicate", numbers.duplicate),
            ("rejected", numbers.rejected + numbers.refused),
            ("parked", numbers.parked),
        ] {
            let count = u64::try_from(count).unwrap_or(0);
            if count > 0 {
                counter!(RECORDS, "partition" => partition.clone(), "verdict" => verdict)
                    .increment(count);
            }
        }
        if let skipped @ 1.. = u64::try_from(numbers.skipped).unwrap_or(0) {
            counter!(SKIPPED, "partition" => partition).increment(skipped);
        }
    }
    let by_rule = outcome
        .ledger
        .iter()
        .map(|row| row.verdict)
        .filter(|code| *code != 0);
    let refused = outcome.refused.iter().map(|row| row.raw.reason);
    for reason in by_rule.chain(refused).filter_map(Reason::from_code) {
        counter!(REJECTED, "reason" => reason.as_str()).increment(1);
    }
}

pub(crate) fn any_misrouted(outcome: &Outcome<'_>) -> bool {
    outcome
        .refused
        .iter()
        .any(|row| row.raw.reason == Reason::Misrouted.code())
}

pub(crate) fn fenced() {
    counter!(FENCED).increment(1);
}

pub(crate) fn retried() {
    counter!(RETRIED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats by format")]
pub(crate) fn partition(status: &PartitionStatus, now: i64) {
    let partition = status.partition.to_string();
    let lag_micros = status
        .oldest_unapplied_at
        .map_or(0, |at| now.saturating_sub(at).max(0));
    gauge!(LAG_SECONDS, "partition" => partition.clone()).set(lag_micros as f64 / 1e6);
    gauge!(LOG_END, "partition" => partition.clone()).set(status.log_end as f64);
    let active = if status.state == "active" { 1.0 } else { 0.0 };
    gauge!(ACTIVE, "partition" => partition.clone()).set(active);
    if let Some(position) = status.position {
        gauge!(POSITION, "partition" => partition).set(position as f64);
    }
}
