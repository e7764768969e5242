//! Generated records as the ledger meets them.

use millrace_generator::{IdVersion, Skew, Workload};
use millrace_ledger::record::{Batch, Incoming, Intake, LogRange};
use millrace_rules::Currency;
use millrace_schemas::{Key, Transaction, encode, partition_of};

/// The topic's partitions. All records of a sample are in the first.
pub const PARTITIONS: i32 = 12;

/// Transactions of one partition, over the accounts of the canonical workload.
pub fn transactions(count: usize) -> Vec<Transaction<'static>> {
    let workload = Workload {
        // One in twelve is in the partition; a few more, so that there are enough.
        count: 14 * count as u64,
        rate: None,
        accounts: 100_000,
        skew: Skew::Uniform,
        seed: 1,
        id_version: IdVersion::V7,
        currency: Currency::parse("EUR").expect("a currency"),
        external_share: 0.0,
        start_micros: 1_767_225_600_000_000,
    };
    let all = workload.transactions().expect("a valid workload");
    let here: Vec<_> = all
        .filter(|t| Key::of(t).with_bytes(|key| partition_of(key, PARTITIONS)) == 0)
        .take(count)
        .collect();
    assert_eq!(here.len(), count);
    here
}

/// Their values in Kafka.
pub fn values(transactions: &[Transaction<'_>]) -> Vec<Vec<u8>> {
    let value = |transaction| {
        let mut bytes = Vec::new();
        encode(transaction, &mut bytes);
        bytes
    };
    transactions.iter().map(value).collect()
}

/// The records of the first partition from offset 0 on.
#[allow(
    dead_code,
    reason = "not every benchmark that shares this file needs it"
)]
pub fn intake(transactions: &[Transaction<'_>]) -> Intake {
    let mut intake = Intake::default();
    for ((offset, transaction), value) in (0..).zip(transactions).zip(values(transactions)) {
        Key::of(transaction).with_bytes(|key| {
            intake.push(Incoming {
                partition: 0,
                offset,
                timestamp: Some(transaction.occurred_at / 1_000),
                key: Some(key),
                value: Some(&value),
                headers: std::iter::empty(),
            });
        });
    }
    intake
}

/// All of them as one batch.
#[allow(
    dead_code,
    reason = "not every benchmark that shares this file needs it"
)]
pub fn batch(intake: &mut Intake, count: usize) -> Batch<'_> {
    let range = LogRange {
        partition: 0,
        incarnation: 1,
        from: 0,
        next: i64::try_from(count).expect("a few thousand"),
    };
    intake.batch([range].into_iter())
}
