//! Parked records as an operator's work: replay what can be applied by now, discard what never will.
//!
//! Both run in database transactions of their own, under the partition's lock and beside its lane, which
//! finds another chain head at its next batch and forgets what it remembered. The position stays; what
//! becomes of the records, and each resolution, gets the next `seq` in a batch of its own. The bytes are
//! those that were parked. Both can be repeated: what is resolved is not open any more.
//!
//! Order: a key's open records are replayed from the first on, and as far as they can be applied. The first
//! one that still cannot keeps those behind it.

mod discard;
mod headers;
mod replay;

use std::collections::BTreeMap;

pub use discard::discard;
pub use headers::headers;
pub use replay::replay;

use crate::store::{self, Store};

/// Which open records of a partition. What is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The raw key.
    pub key: Option<Vec<u8>>,
    /// The code of the reason: see `millrace_rules::ParkReason`.
    pub reason: Option<i16>,
    /// The offset in the log.
    pub log_offset: Option<i64>,
    /// Its own number: of two that were parked at the same offset of different logs, one.
    pub seq: Option<i64>,
    /// Keys whose open records are wanted beside those that are chosen.
    pub also_keys: Vec<Vec<u8>>,
}

/// Who does it, and why: kept with each resolution.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The partition.
    pub partition: i32,
    /// Which of its open records.
    pub selection: &'a Selection,
    /// Why.
    pub reason: &'a str,
    /// Who.
    pub operator: &'a str,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
}

/// What became of the chosen records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// How many, by verdict: posted, duplicate, `discarded`, or the reason of a rejection.
    pub records: BTreeMap<&'static str, u64>,
    /// Those that stay parked; at most [`REMAINING_NAMED_MAX`] are named.
    pub remaining: Vec<Remaining>,
    /// How many stay parked.
    pub remaining_count: u64,
}

/// A record that still cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// The partition.
    pub partition: i32,
    /// The offset in the log.
    pub log_offset: i64,
    /// Why, as of now: what it was parked for may be something else.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
}

/// How many records that stay parked are named.
pub const REMAINING_NAMED_MAX: usize = 100;

impl Resolved {
    fn add(&mut self, verdict: &'static str) {
        *self.records.entry(verdict).or_default() += 1;
    }

    fn remains(&mut self, record: Remaining) {
        self.remaining_count += 1;
        if self.remaining.len() < REMAINING_NAMED_MAX {
            self.remaining.push(record);
        }
    }

    fn forget_remaining(&mut self) {
        self.remaining.clear();
        self.remaining_count = 0;
    }

    /// How many were resolved.
    pub fn count(&self) -> u64 {
        self.records.values().sum()
    }

    /// Adds what became of other records.
    pub fn merge(&mut self, other: Self) {
        for (verdict, count) in other.records {
            *self.records.entry(verdict).or_default() += count;
        }
        let room = REMAINING_NAMED_MAX - self.remaining.len();
        self.remaining
            .extend(other.remaining.into_iter().take(room));
        self.remaining_count += other.remaining_count;
    }
}

/// Why it was not done. What was done before this is in the ledger; to repeat the order is safe.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database: try again.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// Somebody else holds the partition's lock for long: try again.
    #[error("partition {0} is locked by another owner that does not end its work: {1}")]
    Busy(i32, String),
    /// The database has applied nothing yet, or not of this partition.
    #[error("partition {0} was never read")]
    NoPartition(i32),
}

/// How often an order is tried afresh because another transaction was in the way: for some twenty seconds,
/// where that is an owner at work.
const TRIES_MAX: u32 = 20;

/// What a database transaction came to, once it is over; `None` where it is to be tried afresh.
async fn settle<T>(
    store: &mut impl Store,
    partition: i32,
    result: Result<T, Error>,
    tries: &mut u32,
) -> Result<Option<T>, Error> {
    let failure = match result {
        Ok(done) => {
            *tries = 0;
            return Ok(Some(done));
        }
        Err(failure) => failure,
    };
    let is_last = *tries == TRIES_MAX;
    *tries += 1;
    match failure {
        Error::Store(store::Error::Locked(detail)) if is_last => {
            Err(Error::Busy(partition, detail))
        }
        // It is about to end, unless it is frozen.
        Error::Store(store::Error::Locked(_)) => {
            store.end_frozen(&[partition]).await?;
            Ok(None)
        }
        Error::Store(store::Error::Retry(_)) if !is_last => Ok(None),
        other => Err(other),
    }
}
