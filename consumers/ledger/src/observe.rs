//! What a lane counts, once per batch.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use millrace_metrics::{
    LEDGER_ACTIVE, LEDGER_BATCH, LEDGER_DISORDER, LEDGER_FENCED, LEDGER_FROZEN, LEDGER_LAG,
    LEDGER_LOG_END, LEDGER_POSITION, LEDGER_RECORDS, LEDGER_REJECTED, LEDGER_RESTARTED,
    LEDGER_RETRIED, LEDGER_SKIPPED, LEDGER_STAGE, LEDGER_STALLED,
};
use millrace_rules::Reason;
use tracing::error;

use crate::pipeline::outcome::Outcome;
use crate::pipeline::sentinel::Violation;
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

pub(crate) fn ended_frozen() {
    counter!(LEDGER_FROZEN).increment(1);
}

/// What was seen of the keys' order.
pub(crate) fn order((violations, first): (u64, Option<Violation>)) {
    if let Some(Violation {
        partition,
        offset,
        after,
    }) = first
    {
        counter!(LEDGER_DISORDER).increment(violations);
        error!(
            partition,
            offset, after, violations, "records of a key were applied out of order"
        );
    }
}

pub(crate) fn restarted() {
    counter!(LEDGER_RESTARTED).increment(1);
}

/// Counters whose first event must not be missed are there from the start.
pub fn begin() {
    for name in [
        LEDGER_DISORDER,
        LEDGER_FENCED,
        LEDGER_FROZEN,
        LEDGER_RESTARTED,
        LEDGER_RETRIED,
    ] {
        counter!(name).increment(0);
    }
}

pub(crate) fn retried() {
    counter!(LEDGER_RETRIED).increment(1);
}

pub(crate) fn partition(status: &PartitionStatus) {
    let stalled = status.state == "stalled";
    let active = if status.state == "active" { 1.0 } else { 0.0 };
    let partition = status.partition.to_string();
    gauge!(LEDGER_STALLED, "partition" => partition).set(if stalled { 1.0 } else { 0.0 });
    let end = status.bounds.map(|bounds| bounds.end);
    let lag_s = known(status.lag_micros()) / 1e6;
    set_gauges(
        status.partition,
        active,
        lag_s,
        known(end),
        known(status.position),
    );
}

/// The partition is another's: what was last said of it here is true no more.
pub(crate) fn gone(partition: i32) {
    gauge!(LEDGER_STALLED, "partition" => partition.to_string()).set(0.0);
    set_gauges(partition, 0.0, f64::NAN, f64::NAN, f64::NAN);
}

/// What is not known is not a number, and never 0.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats by format")]
fn known(value: Option<i64>) -> f64 {
    value.map_or(f64::NAN, |value| value as f64)
}

fn set_gauges(partition: i32, active: f64, lag_s: f64, end: f64, position: f64) {
    let partition = partition.to_string();
    for (name, value) in [
        (LEDGER_ACTIVE, active),
        (LEDGER_LAG, lag_s),
        (LEDGER_LOG_END, end),
        (LEDGER_POSITION, position),
    ] {
        gauge!(name, "partition" => partition.clone()).set(value);
    }
}
