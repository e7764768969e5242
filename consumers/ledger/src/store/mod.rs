//! The database side. All SQL of the ledger group lives here and in `migrations/`.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | what a failed statement means |
//! | [`micros`] | timestamps |
//! | [`postgres`] | Postgres behind the trait; `read` and `write` hold its statements |
//! | [`frozen`] | ending the connection of an owner that is frozen |
//! | [`copy`] | rows as binary COPY |
//! | [`parked`] | parked records as operators see them |
//! | [`policies`] | setting and showing what accounts may do |
//! | [`positions`] | what operators see of positions, and accept |
//! | [`slices`] | adding to balances |
//! | [`small`] | the rows of a small batch in one statement |
//! | [`socket`] | small messages at once |
//! | [`tid`] | where a row lies |
//! | [`schema`] | migrations and what the code knows better than SQL |
//! | [`served`] | which partitions the database serves |

pub mod copy;
pub mod error;
mod frozen;
pub mod micros;
pub mod parked;
pub mod policies;
pub mod positions;
pub mod postgres;
mod read;
pub mod schema;
pub mod served;
mod slices;
mod small;
mod socket;
mod tid;
mod write;

use millrace_rules::{Currency, Limit, Status};
use uuid::Uuid;

pub use error::Error;
pub use micros::Micros;
pub use served::Served;

use crate::chain::{Head, Numbers};
use crate::kafka::log::{Bounds, Topic};
use crate::parking::Selection;
use crate::pipeline::outcome::Outcome;

/// A partition's row in `positions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// Goes up when an operator accepts a gap.
    pub incarnation: i32,
    /// The next log offset to apply.
    pub position: i64,
    /// The next `seq` to give.
    pub next_seq: i64,
    /// The next batch number to give.
    pub next_batch: i64,
    /// The hash chain after the last batch.
    pub chain_head: Head,
    /// Changes with every policy that this partition decides by.
    pub policy_version: i64,
    /// How many parked records are open.
    pub parked_open: i64,
    /// The last applied record; none before the first one and after an operator has moved the position.
    pub anchor: Option<Anchor>,
}

/// A partition's position after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The batch: where it began and ended, and its counts.
    pub numbers: Numbers,
    /// The hash chain after it.
    pub chain_head: Head,
    /// The last record: offset, timestamp, digest of its bytes.
    pub anchor: Option<Anchor>,
}

/// How a log is recognised: its record at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// [`crate::chain::anchor`] of its bytes.
    pub digest: [u8; 32],
}

/// What the database knows of the log, and the positions of the partitions asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Which database this is: a restored copy is the same one.
    pub database: Uuid,
    /// The topic as it was first seen.
    pub topic: Topic,
    /// Which of the topic's partitions it serves.
    pub served: Served,
    /// One position per partition asked for that it serves, in their order.
    pub positions: Vec<Position>,
}

/// A parked record without a resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct OpenParked {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub record_timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<u8>,
    /// Whether it was chosen itself.
    pub is_chosen: bool,
    /// Whether an open record of its key is at or before `after_seq`.
    pub has_earlier: bool,
}

/// What accounts may do, as far as the batch asks.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// The default limits, for one currency or all.
    pub default_limits: Vec<(Option<Currency>, Limit)>,
    /// Whether any account has limits of its own.
    pub any_limits: bool,
    /// Whether any account is not open.
    pub any_statuses: bool,
    /// Limits of the accounts asked for.
    pub limits: Vec<(String, Option<Currency>, Limit)>,
    /// Statuses of the accounts asked for that are not open.
    pub statuses: Vec<(String, Status)>,
}

/// What the owner says of a partition each second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: i32,
    /// The state's name.
    pub state: &'static str,
    /// Why it is stopped, else empty.
    pub detail: String,
    /// The next offset to apply, where it is known.
    pub position: Option<i64>,
    /// What the log holds, where it is known.
    pub bounds: Option<Bounds>,
    /// When the oldest record that is not applied came in, or the last applied one before it,
    /// microseconds since 1970; none when there is none, or when it is not known.
    pub oldest_unapplied_at: Option<i64>,
    /// When this was true, microseconds since 1970.
    pub updated_at: i64,
}

impl PartitionStatus {
    /// What its owner said last, once that is heard of no more: nobody knows how far the log goes.
    pub(crate) fn silent(self, detail: String) -> Self {
        Self {
            state: "stalled",
            detail,
            bounds: None,
            oldest_unapplied_at: None,
            ..self
        }
    }

    /// Offsets between the position and the log's end, where both are known.
    pub fn lag_records(&self) -> Option<i64> {
        Some((self.bounds?.end - self.position?).max(0))
    }

    /// The age of the oldest record that is not applied, in microseconds: 0 when there is none.
    pub fn lag_micros(&self) -> Option<i64> {
        if self.lag_records() == Some(0) {
            return Some(0);
        }
        Some((self.updated_at - self.oldest_unapplied_at?).max(0))
    }
}

/// How long to wait for the partitions' locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// As long as another owner's batch may take.
    Normal,
    /// Hardly: somebody holds a lock for long, and others wait for their turn.
    Short,
}

/// The store: Postgres, or a simulation of it. One lane owns it. Between [`Store::lock`] and
/// [`Store::commit`] or [`Store::rollback`] there is one database transaction.
#[expect(
    async_fn_in_trait,
    reason = "lanes are generic over their store and never sent while running"
)]
pub trait Store {
    /// Ties the database to the topic when it has none yet, and reads the positions; a partition
    /// seen for the first time begins at the given log start, if the topic is the database's and the partition
    /// one that it serves.
    async fn attach(&mut self, topic: &Topic, starts: &[(i32, i64)]) -> Result<Attached, Error>;

    /// Begins a transaction and locks the partitions (ascending): their positions, in their order.
    async fn lock(&mut self, partitions: &[i32], wait: LockWait) -> Result<Vec<Position>, Error>;

    /// Id and digest of those ids that have a verdict.
    async fn known(&mut self, ids: &[[u8; 16]]) -> Result<Vec<([u8; 16], [u8; 32])>, Error>;

    /// Those (partition, key) that have open parked records.
    async fn held(&mut self, keys: &[(i32, &[u8])]) -> Result<Vec<(i32, Vec<u8>)>, Error>;

    /// The defaults, and what is set for these accounts.
    async fn policies(&mut self, accounts: &[&str]) -> Result<Policies, Error>;

    /// The balance of each (account, currency), all slices added up, in the order asked for.
    async fn funds(&mut self, accounts: &[(&str, Currency)]) -> Result<Vec<i128>, Error>;

    /// Writes everything that the batch changes.
    async fn write(&mut self, outcome: &Outcome<'_>) -> Result<(), Error>;

    /// Makes it so. After an error nobody knows whether it is.
    async fn commit(&mut self) -> Result<(), Error>;

    /// Somebody holds the lock of one of these partitions: ends the connection of an owner that is frozen,
    /// never of one that works. Gives whether one was ended.
    async fn end_frozen(&mut self, partitions: &[i32]) -> Result<bool, Error>;

    /// The open records of the partition after `after_seq` that are chosen or of the same key as a chosen one,
    /// by `seq`: at most `records_max` and, beyond the first, 4 MiB.
    async fn open_parked(
        &mut self,
        partition: i32,
        selection: &Selection,
        after_seq: i64,
        records_max: usize,
    ) -> Result<Vec<OpenParked>, Error>;

    /// How many connections were opened so far: behind another one there may be an older state of the
    /// database.
    fn connections(&self) -> u64;

    /// Undoes what is not committed.
    async fn rollback(&mut self);

    /// Says how the partitions are, outside any batch.
    async fn publish_status(&mut self, statuses: &[PartitionStatus]) -> Result<(), Error>;
}
