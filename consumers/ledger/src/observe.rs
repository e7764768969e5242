//! What a lane counts, once per batch.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use millrace_metrics::{
    LEDGER_ACTIVE, LEDGER_BATCH, LEDGER_FENCED, LEDGER_LAG, LEDGER_LOG_END, LEDGER_POSITION,
    LEDGER_RECORDS, LEDGER_REJECTED, LEDGER_RETRIED, LEDGER_SKIPPED, LEDGER_STAGE,
};
use millrace_rules::Reason;

use crate::pipeline::plan::Outcome;
use crate::record::Batch;
use crate::store::PartitionStatus;

/// Times the phases of one batch.
pub(crate) struct Stage(Duration);

impl Stage {
    pub(crate) fn begin(now: Duration) -> Self {
        Self(now)
    }

    pub(crate) fn end(&mut self, stage: &'static str, now: Duration) {
        histogram!(LEDGER_STAGE, "stage" => stage).record(now.saturating_sub(self.0));
        self.0 = now;
    }
}

pub(crate) fn batch(outcome: &Outcome<'_>, batch: &Batch<'_>) {
    #[expect(clippy::cast_precision_loss, reason = "a batch has few records")]
    histogram!(LEDGER_BATCH).record(batch.len() as f64);
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
                counter!(LEDGER_RECORDS, "partition" => partition.clone(), "verdict" => verdict)
                    .increment(count);
            }
        }
        if let skipped @ 1.. = u64::try_from(numbers.skipped).unwrap_or(0) {
            counter!(LEDGER_SKIPPED, "partition" => partition).increment(skipped);
        }
    }
    let by_rule = outcome
        .ledger
        .iter()
        .map(|row| row.verdict)
        .filter(|code| *code != 0);
    let refused = outcome.refused.iter().map(|row| row.raw.reason);
    for reason in by_rule.chain(refused).filter_map(Reason::from_code) {
        counter!(LEDGER_REJECTED, "reason" => reason.as_str()).increment(1);
    }
}

pub(crate) fn any_misrouted(outcome: &Outcome<'_>) -> bool {
    outcome
        .refused
        .iter()
        .any(|row| row.raw.reason == Reason::Misrouted.code())
}

pub(crate) fn fenced() {
    counter!(LEDGER_FENCED).increment(1);
}

pub(crate) fn retried() {
    counter!(LEDGER_RETRIED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats by format")]
pub(crate) fn partition(status: &PartitionStatus, now: i64) {
    let partition = status.partition.to_string();
    let lag_micros = status
        .oldest_unapplied_at
        .map_or(0, |at| now.saturating_sub(at).max(0));
    gauge!(LEDGER_LAG, "partition" => partition.clone()).set(lag_micros as f64 / 1e6);
    gauge!(LEDGER_LOG_END, "partition" => partition.clone()).set(status.log_end as f64);
    let active = if status.state == "active" { 1.0 } else { 0.0 };
    gauge!(LEDGER_ACTIVE, "partition" => partition.clone()).set(active);
    if let Some(position) = status.position {
        gauge!(LEDGER_POSITION, "partition" => partition).set(position as f64);
    }
}
