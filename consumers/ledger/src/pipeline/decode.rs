//! Decode: from bytes to transactions, or to what is wrong with them.

use std::collections::HashSet;

use millrace_rules::{Candidate, Content, ParkReason, Reason};
use millrace_schemas::key::Key;
use millrace_schemas::{ContentType, DecodeError, Transaction, Wire, partition_of};

use crate::record::{Batch, Record};

/// Records (partition, offset) that Postgres refused: they are parked.
pub type Culprits = HashSet<(i32, i64)>;

/// What a record says.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A valid transaction in its right place.
    Transaction(Transaction<'a>),
    /// Readable, and not acceptable.
    Refused(Box<Refusal<'a>>),
    /// Not readable.
    Parked {
        /// Why.
        reason: ParkReason,
        /// What was found.
        detail: String,
    },
}

/// Why a readable record is refused.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Why.
    pub reason: Reason,
    /// What was found and what would be right.
    pub detail: String,
    /// What could be read.
    pub wire: Wire<'a>,
}

/// Decodes every record of a batch, in order. The topic has `partitions`.
pub fn decode<'a>(batch: &Batch<'a>, partitions: i32, culprits: &Culprits) -> Vec<Decoded<'a>> {
    let records = batch.slices().iter().flat_map(|slice| batch.records(slice));
    records
        .map(|record| {
            if !culprits.is_empty() && culprits.contains(&(record.partition, record.offset)) {
                let detail = "the database refused the row".to_owned();
                return Decoded::Parked {
                    reason: ParkReason::DatabaseRefused,
                    detail,
                };
            }
            decode_record(batch, record, partitions)
        })
        .collect()
}

/// What the decision looks at, in the order of the records.
pub fn candidates<'d>(batch: &Batch<'d>, decoded: &'d [Decoded<'_>]) -> Vec<Candidate<'d>> {
    let records = batch.slices().iter().flat_map(|slice| batch.records(slice));
    records
        .zip(decoded)
        .map(|(record, decoded)| Candidate {
            partition: record.partition,
            key: batch.key(record),
            content: match decoded {
                Decoded::Transaction(transaction) => Content::Transfer(transaction.transfer()),
                Decoded::Refused(refusal) => Content::Refused(refusal.reason),
                Decoded::Parked { reason, .. } => Content::Parked(*reason),
            },
        })
        .collect()
}

fn decode_record<'a>(batch: &Batch<'a>, record: &Record, partitions: i32) -> Decoded<'a> {
    let Some(value) = batch.value(record) else {
        let detail = "the record has no value".to_owned();
        return Decoded::Parked {
            reason: ParkReason::Undecodable,
            detail,
        };
    };
    match millrace_schemas::decode(value, record.content_type) {
        Ok(wire) => validate(batch, record, wire, partitions),
        Err(error) => Decoded::Parked {
            reason: match error {
                DecodeError::UnknownSchema(_) => ParkReason::UnknownSchema,
                DecodeError::Undecodable(_) => ParkReason::Undecodable,
            },
            detail: printable(&error.to_string(), record.content_type),
        },
    }
}

fn validate<'a>(
    batch: &Batch<'a>,
    record: &Record,
    wire: Wire<'a>,
    partitions: i32,
) -> Decoded<'a> {
    let refused = |reason, detail, wire| {
        Decoded::Refused(Box::new(Refusal {
            reason,
            detail,
            wire,
        }))
    };
    match Transaction::try_from(wire) {
        Err((wire, invalid)) => refused(invalid.reason, invalid.detail, wire),
        Ok(transaction) => match misrouted(batch.key(record), record, &transaction, partitions) {
            None => Decoded::Transaction(transaction),
            Some(detail) => refused(Reason::Misrouted, detail, transaction.into_wire()),
        },
    }
}

/// Whether the record is where its key belongs; what is wrong if not.
fn misrouted(
    raw_key: Option<&[u8]>,
    record: &Record,
    transaction: &Transaction<'_>,
    partitions: i32,
) -> Option<String> {
    let key = Key::of(transaction);
    key.with_bytes(|bytes| {
        if raw_key != Some(bytes) {
            let found = raw_key.map(String::from_utf8_lossy);
            let shown = found.as_deref().map_or("none".into(), |key| {
                format!("{:?}", key.chars().take(80).collect::<String>())
            });
            return Some(format!(
                "the Kafka key is {shown}, the derived key is \"{key}\""
            ));
        }
        let home = partition_of(bytes, partitions);
        (home != record.partition).then(|| {
            format!(
                "key \"{key}\" belongs to partition {home} of {partitions}, not {}",
                record.partition
            )
        })
    })
}

/// Text that Postgres can store: a decoder may quote U+0000.
fn printable(text: &str, content_type: ContentType) -> String {
    let encoding = match content_type {
        ContentType::Avro => "avro",
        ContentType::Json => "json",
    };
    format!("{encoding}: {}", text.replace('\0', "\\0"))
}
