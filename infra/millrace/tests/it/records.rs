//! Transactions and raw records to publish.

use millrace_publisher::{Publisher, RawRecord, Receipt};
use millrace_schemas::wire::Wire;
use millrace_schemas::{Key, Transaction, partition_of};
use serde_json::{Value, json};
use uuid::Uuid;

/// 2026-01-02T03:04:05Z.
const OCCURRED_AT: i64 = 1_767_323_045_000_000;

/// The id with this number.
pub fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

/// A valid transaction in EUR.
pub fn transfer(number: u128, debit: &str, credit: &str, amount: i64) -> Transaction<'static> {
    Transaction::try_from(Wire {
        id: id(number).to_string().into(),
        kind: "transfer".into(),
        debit_account: debit.to_owned().into(),
        credit_account: credit.to_owned().into(),
        amount,
        currency: "EUR".into(),
        occurred_at: OCCURRED_AT,
        reference: "".into(),
        source: "it".into(),
        metadata: millrace_schemas::wire::Metadata::default(),
        misread: None,
    })
    .unwrap()
}

/// The same as the gateway takes it.
pub fn json(transaction: &Transaction<'_>) -> Value {
    json!({
        "id": transaction.id.to_string(),
        "kind": transaction.kind,
        "debit_account": transaction.debit_account.as_str(),
        "credit_account": transaction.credit_account.as_str(),
        "amount": transaction.amount.minor_units(),
        "currency": transaction.currency.code(),
        "occurred_at": "2026-01-02T03:04:05Z",
        "source": transaction.source,
    })
}

/// One object per line.
pub fn lines(items: &[Value]) -> String {
    let texts: Vec<_> = items.iter().map(Value::to_string).collect();
    texts.join("\n") + "\n"
}

/// The same as Avro in single-object encoding.
pub fn avro(transaction: &Transaction<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    millrace_schemas::encode(transaction, &mut bytes);
    bytes
}

/// The partition that a transaction belongs to.
pub fn home(transaction: &Transaction<'_>, partitions: i32) -> i32 {
    Key::of(transaction).with_bytes(|key| partition_of(key, partitions))
}

/// An account whose debits are in this partition.
pub fn account_in(partition: i32, partitions: i32, prefix: &str) -> String {
    (0..1_000)
        .map(|number| format!("{prefix}-{number}"))
        .find(|account| partition_of(account.as_bytes(), partitions) == partition)
        .unwrap()
}

/// Publishes in order and waits for all receipts.
pub async fn publish<'a>(
    publisher: &Publisher,
    transactions: impl IntoIterator<Item = &'a Transaction<'static>>,
) -> Vec<Receipt> {
    let mut deliveries = Vec::new();
    for transaction in transactions {
        deliveries.push(publisher.publish(transaction).await.unwrap());
    }
    let mut receipts = Vec::new();
    for delivery in deliveries {
        receipts.push(delivery.await.unwrap());
    }
    receipts
}

/// Publishes any bytes and waits for the receipt.
pub async fn publish_raw(publisher: &Publisher, record: RawRecord<'_>) -> Receipt {
    publisher.publish_raw(record).await.unwrap().await.unwrap()
}
