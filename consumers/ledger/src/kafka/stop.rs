//! Why a partition does not go on until an operator acts.

use uuid::Uuid;

/// Why a partition does not go on. What it says is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Retention has deleted records that were never applied.
    #[error(
        "the log of partition {partition} starts at {start}, beyond the position {position}: {} records \
         were deleted before they were applied; restore them or accept the gap", start - position
    )]
    LogStartBeyond {
        /// The partition.
        partition: i32,
        /// The log's start.
        start: i64,
        /// The position in the database.
        position: i64,
    },
    /// The log is shorter than what was applied.
    #[error(
        "the position {position} of partition {partition} is beyond the end of its log, {end}: the topic \
         was truncated or recreated, or this is another cluster"
    )]
    PositionBeyondEnd {
        /// The partition.
        partition: i32,
        /// The log's end.
        end: i64,
        /// The position in the database.
        position: i64,
    },
    /// The last applied record is not in the log any more.
    #[error(
        "the record at offset {offset} of partition {partition} is not the one that was applied: the \
         topic was truncated or recreated, or this is another cluster"
    )]
    AnotherLog {
        /// The partition.
        partition: i32,
        /// Where the last applied record was.
        offset: i64,
    },
    /// The database has lost what it had committed.
    #[error(
        "the database has partition {partition} at {position} (incarnation {incarnation}), and had it at \
         {known} (incarnation {known_incarnation}) before: it has failed over or was restored to an older \
         state; bring back the newer one or accept that records are applied again"
    )]
    DatabaseWentBack {
        /// The partition.
        partition: i32,
        /// The position's incarnation in the database.
        incarnation: i32,
        /// The position in the database.
        position: i64,
        /// The incarnation that was seen before.
        known_incarnation: i32,
        /// The position that was seen before.
        known: i64,
    },
    /// Keys no longer belong where they are.
    #[error(
        "the topic has {found} partitions, the database knows {known}: with another count keys change \
         their partitions; nothing is applied until the counts agree again"
    )]
    PartitionCount {
        /// What the database stores.
        known: i32,
        /// What the broker has.
        found: i32,
    },
    /// The database belongs to another topic.
    #[error("the database applies the topic {known:?}, not {found:?}")]
    OtherTopic {
        /// What the database stores.
        known: String,
        /// What this replica was told to read.
        found: String,
    },
    /// Another database's lanes are, or were, in the group: what the group gives to them is not applied here.
    #[error(
        "the offset of partition {partition} in the consumer group is that of database {database}: this one \
         serves some of the topic's partitions only and would miss those that the group gives to the other; \
         start it with --group and a name that no other database has used"
    )]
    SharedGroup {
        /// A partition of which the other database has told.
        partition: i32,
        /// The other database.
        database: Uuid,
    },
    /// Parking would go on and on: a bad deploy, a wrong schema.
    #[error(
        "{parked} of the last {records} records of partition {partition} cannot be understood, more than \
         {percent} %: nothing more of it is parked or applied; mend the sender or this replica, or allow more \
         with --park-brake-percent, and start again"
    )]
    ParkBrake {
        /// The partition.
        partition: i32,
        /// How many records were looked at.
        records: u64,
        /// How many of them would be parked.
        parked: u64,
        /// The share that is allowed.
        percent: u8,
    },
    /// The database has rows where the position says there are none.
    #[error("the database contradicts its own positions: {0}")]
    Contradiction(String),
}

impl Stop {
    /// Whether comparing log and database shows it, so that comparing them again shows that it is over.
    /// What batches have shown ends with a restart or another owner.
    pub(super) fn is_found_by_checks(&self) -> bool {
        match self {
            Self::LogStartBeyond { .. }
            | Self::PositionBeyondEnd { .. }
            | Self::AnotherLog { .. }
            | Self::DatabaseWentBack { .. }
            | Self::PartitionCount { .. }
            | Self::OtherTopic { .. }
            | Self::SharedGroup { .. } => true,
            Self::ParkBrake { .. } | Self::Contradiction(_) => false,
        }
    }
}
