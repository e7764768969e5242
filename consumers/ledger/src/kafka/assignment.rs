//! The state of the partitions that this lane is assigned. Pure: events in, answers out.
//!
//! A partition is *unchecked* until its position has been read from the database and compared with
//! the log, then *active*, or *stopped* until an operator acts. Any failure makes it unchecked again.

use std::collections::BTreeMap;

use crate::kafka::log::Bounds;
use crate::record::{LogRange, Record};
use crate::store::Position;

/// Why a partition does not go on until an operator acts.
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
    /// The database has rows where the position says there are none.
    #[error("the database contradicts its own positions: {0}")]
    Contradiction(String),
}

/// Where an active partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Of the position: another one means that an operator has moved it.
    incarnation: i32,
    /// What the database has applied.
    position: i64,
    /// The next offset to take in.
    next: i64,
    /// The offset of a first record beyond `next`: believed when it comes again after a seek.
    doubt: Option<i64>,
    /// Whether records are ignored until the seek is done.
    seeking: bool,
    /// The end of the log before a seek: believed when no record comes before the partition's end.
    tail: Option<i64>,
    /// How often it was asked for a tail since the last record came.
    quiet_asks: u32,
}

/// The state of one assigned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its position has to be read and compared first.
    Unchecked,
    /// It is read and applied.
    Active(Cursor),
    /// It waits for an operator.
    Stopped(Stop),
}

impl State {
    /// The state's name, as shown to operators.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Active(_) => "active",
            Self::Stopped(_) => "stopped",
        }
    }

    /// What the database has applied, where that is known.
    pub fn position(&self) -> Option<i64> {
        match self {
            Self::Active(cursor) => Some(cursor.position),
            Self::Unchecked | Self::Stopped(_) => None,
        }
    }
}

/// All partitions that this lane is assigned.
#[derive(Debug, Default)]
pub struct Assignment {
    partitions: BTreeMap<i32, State>,
}

impl Assignment {
    /// Every partition with its state, ascending.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &State)> {
        self.partitions
            .iter()
            .map(|(partition, state)| (*partition, state))
    }

    /// New partitions have to be checked.
    pub fn assign(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.insert(*partition, State::Unchecked);
        }
    }

    /// Another lane's now.
    pub fn revoke(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.partitions.remove(partition);
        }
    }

    /// The partitions that have to be checked, ascending.
    pub fn unchecked(&self) -> Vec<i32> {
        self.partitions()
            .filter(|(_, state)| **state == State::Unchecked)
            .map(|(partition, _)| partition)
            .collect()
    }

    /// The database stands at `found` and the log holds `bounds`. Gives the offset to read from.
    pub fn check(&mut self, found: &Position, bounds: Bounds) -> Result<i64, Stop> {
        let Position {
            partition,
            position,
            incarnation,
            ..
        } = *found;
        let Bounds { start, end } = bounds;
        let result = if start > position {
            Err(Stop::LogStartBeyond {
                partition,
                start,
                position,
            })
        } else if position > end {
            Err(Stop::PositionBeyondEnd {
                partition,
                end,
                position,
            })
        } else {
            Ok(position)
        };
        let state = match &result {
            Ok(next) => State::Active(Cursor {
                incarnation,
                position,
                next: *next,
                doubt: None,
                seeking: false,
                tail: None,
                quiet_asks: 0,
            }),
            Err(stop) => State::Stopped(stop.clone()),
        };
        self.set(partition, state);
        result
    }

    /// The partition waits for an operator.
    pub fn stop(&mut self, partition: i32, stop: Stop) {
        self.set(partition, State::Stopped(stop));
    }

    /// Partitions that stopped because the topic had another partition count are checked again: it may
    /// be the right one by now. What stopped for another reason waits for an operator.
    pub fn recheck_partition_counts(&mut self) {
        for state in self.partitions.values_mut() {
            if matches!(state, State::Stopped(Stop::PartitionCount { .. })) {
                *state = State::Unchecked;
            }
        }
    }

    /// All active partitions are checked again, and so begin anew.
    pub fn recheck_active(&mut self) {
        for state in self.partitions.values_mut() {
            if matches!(state, State::Active(_)) {
                *state = State::Unchecked;
            }
        }
    }

    /// The partition's position is in doubt: it is checked again.
    pub fn recheck(&mut self, partition: i32) {
        if matches!(self.partitions.get(&partition), Some(State::Active(_))) {
            self.set(partition, State::Unchecked);
        }
    }

    /// Whether this record is the next one of its partition; if so it counts as taken in.
    pub fn take(&mut self, record: &Record) -> bool {
        let Some(State::Active(cursor)) = self.partitions.get_mut(&record.partition) else {
            return false;
        };
        cursor.quiet_asks = 0;
        if cursor.seeking || record.offset < cursor.next {
            return false;
        }
        let first = cursor.next == cursor.position;
        if record.offset > cursor.next && first && cursor.doubt != Some(record.offset) {
            cursor.doubt = Some(record.offset);
            cursor.seeking = true;
            return false;
        }
        cursor.next = record.offset + 1;
        (cursor.doubt, cursor.tail) = (None, None);
        true
    }

    /// The partitions whose first record was beyond the position, with the offset to seek to. The
    /// log's start has to be compared before.
    pub fn doubts(&self) -> Vec<(i32, i64)> {
        self.cursors()
            .filter(|(_, c)| c.seeking)
            .map(|(p, c)| (p, c.next))
            .collect()
    }

    /// The seek is done: records count again.
    pub fn sought(&mut self, partition: i32) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) {
            cursor.seeking = false;
        }
    }

    /// The log seems to go on to `end` without a record. Asks for a seek, to prove it, when none has
    /// come while this was asked `patience` times before.
    pub fn prove_tail(&mut self, partition: i32, end: i64, patience: u32) -> Option<i64> {
        let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) else {
            return None;
        };
        let quiet = cursor.quiet_asks >= patience;
        cursor.quiet_asks = cursor.quiet_asks.saturating_add(1);
        let idle = quiet && cursor.next == cursor.position && !cursor.seeking;
        if !idle || end <= cursor.next || cursor.tail.is_some() {
            return None;
        }
        cursor.tail = Some(end);
        Some(cursor.next)
    }

    /// The partition's end was reached: if no record came since the seek, the tail is a hole.
    pub fn end(&mut self, partition: i32) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition)
            && let Some(tail) = cursor.tail.take()
            && !cursor.seeking
        {
            cursor.next = cursor.next.max(tail);
        }
    }

    /// The ranges that are taken in and not applied, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = LogRange> {
        self.cursors()
            .filter(|(_, cursor)| cursor.next > cursor.position)
            .map(|(partition, cursor)| LogRange {
                partition,
                incarnation: cursor.incarnation,
                from: cursor.position,
                next: cursor.next,
            })
    }

    /// The database has applied up to `next`.
    pub fn committed(&mut self, partition: i32, next: i64) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) {
            cursor.position = next;
        }
    }

    /// (partition, position) of the active partitions.
    pub fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.cursors()
            .map(|(partition, cursor)| (partition, cursor.position))
    }

    fn cursors(&self) -> impl Iterator<Item = (i32, &Cursor)> {
        self.partitions()
            .filter_map(|(partition, state)| match state {
                State::Active(cursor) => Some((partition, cursor)),
                State::Unchecked | State::Stopped(_) => None,
            })
    }

    fn set(&mut self, partition: i32, state: State) {
        if let Some(current) = self.partitions.get_mut(&partition) {
            *current = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Incoming, Intake};

    fn at(position: i64) -> Position {
        Position {
            partition: 0,
            incarnation: 1,
            position,
            next_seq: 0,
            next_batch: 0,
            chain_head: [0; 32],
            policy_version: 0,
            parked_open: 0,
            anchor_timestamp: None,
        }
    }

    fn active(position: i64) -> Assignment {
        let mut assignment = Assignment::default();
        assignment.assign(&[0]);
        let bounds = Bounds { start: 0, end: 100 };
        assert_eq!(assignment.check(&at(position), bounds), Ok(position));
        assignment
    }

    /// Offers records with these offsets; gives those that were taken.
    fn offer(assignment: &mut Assignment, offsets: &[i64]) -> Vec<i64> {
        let mut intake = Intake::default();
        for offset in offsets {
            intake.push(Incoming {
                partition: 0,
                offset: *offset,
                timestamp: None,
                key: None,
                value: None,
                headers: std::iter::empty(),
            });
        }
        let mut taken = Vec::new();
        intake.retain(|record| {
            let take = assignment.take(record);
            if take {
                taken.push(record.offset);
            }
            take
        });
        taken
    }

    fn range(assignment: &Assignment) -> Option<(i64, i64)> {
        assignment
            .ranges()
            .next()
            .map(|range| (range.from, range.next))
    }

    #[test]
    fn nothing_is_taken_before_the_check_or_after_a_stop() {
        let mut assignment = Assignment::default();
        assert!(offer(&mut assignment, &[0]).is_empty());
        assignment.assign(&[0]);
        assert!(offer(&mut assignment, &[0]).is_empty());
        let gone = Bounds { start: 5, end: 9 };
        let stop = Stop::LogStartBeyond {
            partition: 0,
            start: 5,
            position: 4,
        };
        assert_eq!(assignment.check(&at(4), gone), Err(stop));
        assert!(offer(&mut assignment, &[5]).is_empty());
        assignment.assign(&[0]);
        let short = Bounds { start: 0, end: 3 };
        let stop = Stop::PositionBeyondEnd {
            partition: 0,
            end: 3,
            position: 4,
        };
        assert_eq!(assignment.check(&at(4), short), Err(stop));
        assert!(assignment.unchecked().is_empty());
    }

    #[test]
    fn repeated_records_are_passed_over() {
        let mut assignment = active(4);
        assert_eq!(offer(&mut assignment, &[2, 3, 4, 5, 4, 5, 6]), [4, 5, 6]);
        assert_eq!(range(&assignment), Some((4, 7)));
        assignment.committed(0, 7);
        assert_eq!(range(&assignment), None);
    }

    #[test]
    fn a_hole_inside_a_range_is_taken_and_one_before_it_must_come_twice() {
        let mut assignment = active(4);
        assert_eq!(offer(&mut assignment, &[4, 9]), [4, 9]);
        assignment.committed(0, 10);
        assert!(offer(&mut assignment, &[12, 13]).is_empty());
        assert_eq!(assignment.doubts(), [(0, 10)]);
        assignment.sought(0);
        assert_eq!(offer(&mut assignment, &[12, 13]), [12, 13]);
        assert_eq!(range(&assignment), Some((10, 14)));
    }

    #[test]
    fn a_record_that_was_only_late_ends_the_doubt() {
        let mut assignment = active(4);
        assert!(offer(&mut assignment, &[6]).is_empty());
        assignment.sought(0);
        assert_eq!(offer(&mut assignment, &[4, 5, 6]), [4, 5, 6]);
        assert!(assignment.doubts().is_empty());
    }

    #[test]
    fn an_empty_tail_is_proven_by_reaching_the_end_after_a_seek() {
        let mut assignment = active(4);
        assignment.end(0);
        assert_eq!(range(&assignment), None);
        assert_eq!(assignment.prove_tail(0, 4, 0), None);
        assert_eq!(
            assignment.prove_tail(0, 6, 3),
            None,
            "something may come yet"
        );
        assert_eq!(assignment.prove_tail(0, 6, 2), Some(4));
        assignment.end(0);
        assert_eq!(range(&assignment), Some((4, 6)));
    }

    #[test]
    fn a_record_in_the_tail_ends_the_proof() {
        let mut assignment = active(4);
        assert_eq!(assignment.prove_tail(0, 6, 0), Some(4));
        assert_eq!(offer(&mut assignment, &[4]), [4]);
        assignment.end(0);
        assert_eq!(range(&assignment), Some((4, 5)));
    }

    #[test]
    fn a_failure_makes_active_partitions_unchecked_and_leaves_stopped_ones() {
        let mut assignment = active(4);
        assignment.assign(&[1]);
        assignment.stop(
            1,
            Stop::PartitionCount {
                known: 12,
                found: 13,
            },
        );
        assignment.recheck(0);
        assignment.recheck(1);
        assert_eq!(assignment.unchecked(), [0]);
        assignment.revoke(&[0, 1]);
        assert_eq!(assignment.partitions().count(), 0);
    }
}
