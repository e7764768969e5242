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

use crate::store;

/// Which open records of a partition. What is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The raw key.
    pub key: Option<Vec<u8>>,
    /// The code of the reason: see `millrace_rules::ParkReason`.
    pub reason: Option<i16>,
    /// The offset in the log.
    pub log_offset: Option<i64>,
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
    /// Those that stay parked: offset, reason, detail; at most [`REMAINING_NAMED_MAX`] are named.
    pub remaining: Vec<(i64, String, String)>,
    /// How many stay parked.
    pub remaining_count: u64,
}

/// How many records that stay parked are named.
pub const REMAINING_NAMED_MAX: usize = 100;

impl Resolved {
    fn add(&mut self, verdict: &'static str) {
        *self.records.entry(verdict).or_default() += 1;
    }

    fn remains(&mut self, offset: i64, reason: &str, detail: &str) {
        self.remaining_count += 1;
        if self.remaining.len() < REMAINING_NAMED_MAX {
            self.remaining
                .push((offset, reason.to_owned(), detail.to_owned()));
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
    /// The database has applied nothing yet, or not of this partition.
    #[error("partition {0} was never read")]
    NoPartition(i32),
}

/// How often an order is tried afresh because another transaction was in the way.
const TRIES_MAX: u32 = 20;
