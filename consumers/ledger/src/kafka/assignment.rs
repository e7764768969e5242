//! The state of the partitions that this lane is assigned. Pure: events in, answers out.
//!
//! A partition is *unchecked* until its position has been read from the database and compared with
//! the log, then *active*, or *stopped* until an operator acts. Any failure makes it unchecked again. One
//! that another database serves is *elsewhere*: the group has given it to this lane, which leaves it alone.

use std::collections::BTreeMap;

use crate::kafka::cursor::{Cursor, Taken, fit};
use crate::kafka::log::{Bounds, Hint};
use crate::planted::{self, Bug};
use crate::record::{LogRange, Record};
use crate::store::{Anchor, Position};

pub use crate::kafka::stop::Stop;

/// The state of one assigned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its position has to be read and compared first.
    Unchecked,
    /// It is read and applied.
    Active(Cursor),
    /// Another database serves it.
    Elsewhere,
    /// It waits for an operator.
    Stopped {
        /// Why.
        stop: Stop,
        /// What the database has applied, where the log can be compared with it.
        position: Option<i64>,
    },
}

impl State {
    /// The state's name, as shown to operators.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active(cursor) if cursor.is_recognised() => "active",
            Self::Unchecked | Self::Active(_) => "unchecked",
            Self::Elsewhere => "elsewhere",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// What the database has applied, where that is known.
    pub fn position(&self) -> Option<i64> {
        match self {
            Self::Active(cursor) => Some(cursor.position),
            Self::Stopped { position, .. } => *position,
            Self::Unchecked | Self::Elsewhere => None,
        }
    }

    fn stopped(&self, stop: Stop) -> Self {
        let position = match stop {
            Stop::LogStartBeyond { position, .. } => Some(position),
            // Log and database are not of one another.
            _ if stop.is_found_by_checks() => None,
            _ => self.position(),
        };
        Self::Stopped { stop, position }
    }
}

/// All partitions that this lane is assigned.
#[derive(Debug, Default)]
pub struct Assignment {
    partitions: BTreeMap<i32, State>,
    /// (incarnation, position) that this lane saw committed last, of every partition it ever had.
    seen: BTreeMap<i32, (i32, i64)>,
    /// What records have shown, until the lane acts on it.
    stops: Vec<(i32, Stop)>,
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

    /// The database stands at `found`, the log holds `bounds`, and the group was told of `hint` by this
    /// database. Gives the offset to read from.
    pub fn check(
        &mut self,
        found: &Position,
        bounds: Bounds,
        hint: Option<&Hint>,
    ) -> Result<i64, Stop> {
        let partition = found.partition;
        let hint = hint.map(|hint| (hint.incarnation, hint.offset));
        let mut known = hint.max(self.seen.get(&partition).copied());
        let mut found = *found;
        if planted::has(Bug::IgnoreHint) {
            known = None;
        }
        if let Some((_, offset)) = hint.filter(|_| planted::has(Bug::ReadFromHint)) {
            (found.position, known) = (offset, None);
        }
        let found = &found;
        let result = stays(found, known)
            .and_then(|()| fit(partition, found.position, bounds))
            .map(|()| Cursor::new(found, bounds));
        match result {
            Ok(cursor) => {
                let from = cursor.read_from();
                self.set(partition, State::Active(cursor));
                Ok(from)
            }
            Err(stop) => {
                self.stop(partition, stop.clone());
                Err(stop)
            }
        }
    }

    /// The partition waits for an operator.
    pub fn stop(&mut self, partition: i32, stop: Stop) {
        if let Some(current) = self.partitions.get_mut(&partition) {
            *current = current.stopped(stop);
        }
    }

    /// Partitions that a check has stopped are checked again: the topic may have the right partition count
    /// by now, or an operator has accepted what is wrong.
    pub fn recheck_stopped(&mut self) {
        for state in self.partitions.values_mut() {
            if matches!(state, State::Stopped { stop, .. } if stop.is_found_by_checks()) {
                *state = State::Unchecked;
            }
        }
    }

    /// Another database serves this partition.
    pub fn leave(&mut self, partition: i32) {
        self.set(partition, State::Elsewhere);
    }

    /// The partitions that another database serves, ascending.
    pub fn elsewhere(&self) -> Vec<i32> {
        self.partitions()
            .filter(|(_, state)| **state == State::Elsewhere)
            .map(|(partition, _)| partition)
            .collect()
    }

    /// The partition is this database's by now.
    pub fn recheck_elsewhere(&mut self, partition: i32) {
        if self.partitions.get(&partition) == Some(&State::Elsewhere) {
            self.set(partition, State::Unchecked);
        }
    }

    /// The partitions that wait for an operator, ascending.
    pub fn stopped(&self) -> Vec<i32> {
        self.partitions()
            .filter(|(_, state)| matches!(state, State::Stopped { .. }))
            .map(|(partition, _)| partition)
            .collect()
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
    pub fn take(&mut self, record: &Record, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let Some(State::Active(cursor)) = self.partitions.get_mut(&record.partition) else {
            return false;
        };
        match cursor.take(record, key, value) {
            Taken::In => true,
            Taken::Passed => false,
            Taken::Stop(stop) => {
                self.show(record.partition, stop);
                false
            }
        }
    }

    /// Everything before `end`, the partition's end, was handed out.
    pub fn end(&mut self, partition: i32, end: i64) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition)
            && let Err(stop) = cursor.end(end)
        {
            self.show(partition, stop);
        }
    }

    fn show(&mut self, partition: i32, stop: Stop) {
        self.stop(partition, stop.clone());
        self.stops.push((partition, stop));
    }

    /// The partitions that records or their absence have stopped since this was last asked.
    pub fn take_stops(&mut self) -> Vec<(i32, Stop)> {
        std::mem::take(&mut self.stops)
    }

    /// The partitions of which something else came than should: a seek has to settle it.
    pub fn doubts(&self) -> Vec<i32> {
        self.cursors()
            .filter(|(_, cursor)| cursor.is_seeking())
            .map(|(partition, _)| partition)
            .collect()
    }

    /// The log of a doubtful partition holds `bounds`: gives the offset to seek to.
    pub fn seek_from(&mut self, partition: i32, bounds: Bounds) -> Result<Option<i64>, Stop> {
        match self.partitions.get_mut(&partition) {
            Some(State::Active(cursor)) => cursor.seek_from(bounds).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the log has shown the last applied record, or does not have to.
    pub fn is_recognised(&self, partition: i32) -> bool {
        matches!(self.partitions.get(&partition), Some(State::Active(cursor)) if cursor.is_recognised())
    }

    /// The seek is done: records count again.
    pub fn sought(&mut self, partition: i32) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) {
            cursor.sought();
        }
    }

    /// The log seems to go on to `end` without a record. Asks for a seek, to prove it, when none has
    /// come while this was asked `patience` times before.
    pub fn prove_tail(&mut self, partition: i32, end: i64, patience: u32) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) {
            cursor.prove_tail(end, patience);
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
    pub fn committed(&mut self, partition: i32, next: i64, anchor: Option<Anchor>) {
        if let Some(State::Active(cursor)) = self.partitions.get_mut(&partition) {
            cursor.committed(next, anchor);
            self.seen.insert(partition, (cursor.incarnation, next));
        }
    }

    /// (partition, position) of the active partitions.
    pub fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.cursors()
            .map(|(partition, cursor)| (partition, cursor.position))
    }

    /// What the broker is told of the active partitions, which `database` applies.
    pub fn hints(&self, database: uuid::Uuid) -> Vec<Hint> {
        let hint = |(partition, cursor): (i32, &Cursor)| Hint {
            partition,
            offset: if planted::has(Bug::OffsetFirst) {
                cursor.next
            } else {
                cursor.position
            },
            database,
            incarnation: cursor.incarnation,
        };
        self.cursors().map(hint).collect()
    }

    fn cursors(&self) -> impl Iterator<Item = (i32, &Cursor)> {
        self.partitions()
            .filter_map(|(partition, state)| match state {
                State::Active(cursor) => Some((partition, cursor)),
                State::Unchecked | State::Elsewhere | State::Stopped { .. } => None,
            })
    }

    fn set(&mut self, partition: i32, state: State) {
        if let Some(current) = self.partitions.get_mut(&partition) {
            *current = state;
        }
    }
}

/// Whether the database still has what it was known to have.
fn stays(found: &Position, known: Option<(i32, i64)>) -> Result<(), Stop> {
    match known {
        Some((known_incarnation, known))
            if (known_incarnation, known) > (found.incarnation, found.position) =>
        {
            Err(Stop::DatabaseWentBack {
                partition: found.partition,
                incarnation: found.incarnation,
                position: found.position,
                known_incarnation,
                known,
            })
        }
        _ => Ok(()),
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
            anchor: None,
        }
    }

    fn active(position: i64) -> Assignment {
        let mut assignment = Assignment::default();
        assignment.assign(&[0]);
        let bounds = Bounds { start: 0, end: 100 };
        assert_eq!(assignment.check(&at(position), bounds, None), Ok(position));
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
        intake.retain(|record, key, value| {
            let take = assignment.take(record, key, value);
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
        assert_eq!(assignment.check(&at(4), gone, None), Err(stop));
        assert!(offer(&mut assignment, &[5]).is_empty());
        assignment.assign(&[0]);
        let short = Bounds { start: 0, end: 3 };
        let stop = Stop::PositionBeyondEnd {
            partition: 0,
            end: 3,
            position: 4,
        };
        assert_eq!(assignment.check(&at(4), short, None), Err(stop));
        assert!(assignment.unchecked().is_empty());
    }

    #[test]
    fn a_stopped_partition_has_its_position_where_the_log_is_still_its_own() {
        let mut assignment = active(4);
        let position = |assignment: &Assignment| assignment.partitions().next()?.1.position();
        assignment.stop(0, Stop::Contradiction("rows".into()));
        assert_eq!(position(&assignment), Some(4));
        assert_eq!(assignment.stopped(), [0]);
        assignment.assign(&[0]);
        let start = Bounds { start: 5, end: 9 };
        assert!(assignment.check(&at(4), start, None).is_err());
        assert_eq!(position(&assignment), Some(4));
        let mut assignment = active(4);
        assignment.stop(
            0,
            Stop::AnotherLog {
                partition: 0,
                offset: 3,
            },
        );
        assert_eq!(position(&assignment), None);
    }

    #[test]
    fn a_partition_of_another_database_is_neither_read_nor_hinted_nor_checked_again() {
        let mut assignment = active(4);
        assignment.leave(0);
        assert!(offer(&mut assignment, &[4]).is_empty());
        assignment.committed(0, 5, None);
        assignment.recheck(0);
        assignment.recheck_active();
        assignment.recheck_stopped();
        assert!(assignment.unchecked().is_empty() && assignment.stopped().is_empty());
        assert!(assignment.hints(uuid::Uuid::nil()).is_empty());
        assert_eq!(assignment.elsewhere(), [0]);
        assignment.recheck_elsewhere(0);
        assert_eq!(assignment.unchecked(), [0]);
    }

    #[test]
    fn repeated_records_are_passed_over() {
        let mut assignment = active(4);
        assert_eq!(offer(&mut assignment, &[2, 3, 4, 5, 4, 5, 6]), [4, 5, 6]);
        assert_eq!(range(&assignment), Some((4, 7)));
        assignment.committed(0, 7, None);
        assert_eq!(range(&assignment), None);
    }

    #[test]
    fn a_hole_inside_a_range_is_taken_and_one_before_it_must_come_twice() {
        let mut assignment = active(4);
        assert_eq!(offer(&mut assignment, &[4, 9]), [4, 9]);
        assignment.committed(0, 10, None);
        assert!(offer(&mut assignment, &[12, 13]).is_empty());
        assert_eq!(assignment.doubts(), [0]);
        let bounds = Bounds { start: 3, end: 100 };
        assert_eq!(assignment.seek_from(0, bounds), Ok(Some(10)));
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

    /// The log's record at offset 3, as [`offer`] gives it.
    fn anchored(position: i64) -> Position {
        let anchor = Anchor {
            offset: 3,
            timestamp: None,
            digest: crate::chain::anchor(None, None),
        };
        Position {
            anchor: Some(anchor),
            ..at(position)
        }
    }

    const WHOLE: Bounds = Bounds { start: 0, end: 100 };

    #[test]
    fn the_last_applied_record_is_read_again_and_not_applied_again() {
        let mut assignment = active(4);
        assert_eq!(assignment.check(&anchored(4), WHOLE, None), Ok(3));
        assignment.prove_tail(0, 9, 0);
        assert!(assignment.doubts().is_empty(), "first the anchor");
        assert_eq!(offer(&mut assignment, &[3, 4, 5]), [4, 5]);
        assert_eq!(range(&assignment), Some((4, 6)));
        assert!(assignment.take_stops().is_empty());
    }

    #[test]
    fn an_anchor_that_retention_has_deleted_is_not_asked_for() {
        let mut assignment = active(6);
        let bounds = Bounds { start: 4, end: 9 };
        assert_eq!(assignment.check(&anchored(6), bounds, None), Ok(6));
        // Deleted between the check and a seek.
        assert_eq!(assignment.check(&anchored(6), WHOLE, None), Ok(3));
        assert!(offer(&mut assignment, &[7]).is_empty());
        assert_eq!(assignment.seek_from(0, bounds), Ok(Some(6)));
        assignment.sought(0);
        assert_eq!(offer(&mut assignment, &[6, 7]), [6, 7]);
    }

    #[test]
    fn another_record_at_the_anchor_stops_the_partition() {
        let mut assignment = active(4);
        let mut position = anchored(4);
        position.anchor.as_mut().unwrap().timestamp = Some(5);
        assert_eq!(assignment.check(&position, WHOLE, None), Ok(3));
        assert!(offer(&mut assignment, &[3, 4]).is_empty());
        let stop = Stop::AnotherLog {
            partition: 0,
            offset: 3,
        };
        assert_eq!(assignment.take_stops(), [(0, stop)]);
        assert_eq!(range(&assignment), None);
    }

    #[test]
    fn a_missing_anchor_stops_the_partition_when_it_is_missing_twice() {
        let stop = Stop::AnotherLog {
            partition: 0,
            offset: 3,
        };
        let mut assignment = active(4);
        assert_eq!(assignment.check(&anchored(4), WHOLE, None), Ok(3));
        for expected in [vec![], vec![(0, stop.clone())]] {
            assert!(offer(&mut assignment, &[4]).is_empty());
            assert_eq!(assignment.take_stops(), expected);
            assignment.sought(0);
        }
        assert_eq!(assignment.check(&anchored(4), WHOLE, None), Ok(3));
        for expected in [vec![], vec![(0, stop)]] {
            assignment.end(0, 9);
            assert_eq!(assignment.take_stops(), expected);
            assignment.sought(0);
        }
    }

    #[test]
    fn a_database_that_went_back_stops_the_partition_until_a_new_incarnation() {
        let hint = |incarnation, offset| Hint {
            partition: 0,
            offset,
            database: uuid::Uuid::nil(),
            incarnation,
        };
        let mut assignment = active(4);
        assert_eq!(assignment.check(&at(4), WHOLE, Some(&hint(1, 4))), Ok(4));
        for lost in [hint(1, 5), hint(2, 0)] {
            let found = assignment.check(&at(4), WHOLE, Some(&lost));
            assert!(matches!(found, Err(Stop::DatabaseWentBack { .. })));
        }
        assert_eq!(assignment.check(&at(4), WHOLE, None), Ok(4));
        assert_eq!(offer(&mut assignment, &[4, 5]), [4, 5]);
        assignment.committed(0, 6, None);
        assignment.revoke(&[0]);
        assignment.assign(&[0]);
        let found = assignment.check(&at(5), WHOLE, None);
        assert!(matches!(
            found,
            Err(Stop::DatabaseWentBack { known: 6, .. })
        ));
        let accepted = Position {
            incarnation: 2,
            ..at(5)
        };
        assert_eq!(assignment.check(&accepted, WHOLE, Some(&hint(1, 6))), Ok(5));
    }

    /// Seeks where a doubt asks for it; gives the offset.
    fn seek(assignment: &mut Assignment, bounds: Bounds) -> Option<i64> {
        if assignment.doubts().is_empty() {
            return None;
        }
        let offset = assignment.seek_from(0, bounds).unwrap();
        assignment.sought(0);
        offset
    }

    #[test]
    fn an_empty_tail_is_proven_by_reaching_the_end_after_a_seek() {
        let mut assignment = active(4);
        assignment.end(0, 4);
        assert_eq!(range(&assignment), None);
        assignment.prove_tail(0, 4, 0);
        assert_eq!(seek(&mut assignment, WHOLE), None, "there is no tail");
        assignment.prove_tail(0, 6, 3);
        assert_eq!(seek(&mut assignment, WHOLE), None, "something may come yet");
        assignment.prove_tail(0, 6, 2);
        // What is told before the seek is of before.
        assignment.end(0, 6);
        assert_eq!(seek(&mut assignment, WHOLE), Some(4));
        assignment.end(0, 6);
        assert_eq!(range(&assignment), Some((4, 6)));
    }

    #[test]
    fn a_new_leader_that_knows_less_proves_no_tail() {
        let mut assignment = active(4);
        assignment.prove_tail(0, 6, 0);
        assert_eq!(seek(&mut assignment, WHOLE), Some(4));
        assignment.end(0, 5);
        assert_eq!(range(&assignment), None);
        assert_eq!(offer(&mut assignment, &[4, 5]), [4, 5]);
    }

    #[test]
    fn every_seek_begins_at_the_last_applied_record() {
        let mut assignment = active(3);
        assert_eq!(offer(&mut assignment, &[3]), [3]);
        assignment.committed(0, 4, anchored(4).anchor);
        for _ in 0..2 {
            assignment.prove_tail(0, 9, 0);
        }
        assert_eq!(seek(&mut assignment, WHOLE), Some(3));
        assignment.end(0, 9);
        assert_eq!(range(&assignment), None, "the anchor was not seen");
        assert_eq!(seek(&mut assignment, WHOLE), Some(3));
        assert!(offer(&mut assignment, &[3]).is_empty());
        assert_eq!(offer(&mut assignment, &[4]), [4]);
    }

    #[test]
    fn a_record_in_the_tail_ends_the_proof() {
        let mut assignment = active(4);
        assignment.prove_tail(0, 6, 0);
        assert_eq!(seek(&mut assignment, WHOLE), Some(4));
        assert_eq!(offer(&mut assignment, &[4]), [4]);
        assignment.end(0, 6);
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
        assignment.recheck_stopped();
        assert_eq!(assignment.unchecked(), [0, 1]);
        assignment.stop(1, Stop::Contradiction("rows".into()));
        assignment.recheck_stopped();
        assert_eq!(assignment.unchecked(), [0], "no check would find it again");
        assignment.revoke(&[0, 1]);
        assert_eq!(assignment.partitions().count(), 0);
    }
}
