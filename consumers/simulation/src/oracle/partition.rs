//! One partition as the commits leave it.

use std::collections::BTreeMap;
use std::rc::Rc;

use millrace_ledger::chain::{Head, Numbers};
use millrace_ledger::store::{Advance, Position};

use crate::broker::Broker;
use crate::sessions::Known;
use crate::workload::Sent;

/// What is known of one partition.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    /// Whether the database has a position of it.
    pub(super) has_begun: bool,
    pub(super) incarnation: i32,
    pub(super) position: i64,
    pub(super) next_seq: i64,
    pub(super) next_batch: i64,
    pub(super) head: Head,
    pub(super) parked_open: i64,
    /// The last applied record: its offset, and in which version of the log.
    pub(super) anchor: Option<(usize, i64)>,
    /// Open parked records by `seq`.
    pub(super) open: BTreeMap<i64, Waiting>,
}

/// A parked record that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) offset: i64,
    pub(super) sent: Rc<Sent>,
}

impl Partition {
    /// A batch must begin where the last one ended.
    pub(super) fn continues(&self, numbers: &Numbers) -> Result<(), String> {
        let here = (
            self.incarnation,
            self.position,
            self.next_seq,
            self.next_batch,
        );
        let there = (
            numbers.incarnation,
            numbers.from_offset,
            numbers.first_seq,
            numbers.batch,
        );
        let is_resolving = numbers.parked < 0 || numbers.discarded > 0;
        if here == there && (numbers.next_offset > numbers.from_offset) != is_resolving {
            return Ok(());
        }
        Err(format!(
            "(incarnation, offset, seq, batch) is {here:?} before it"
        ))
    }

    /// The lane must not have been told that the database went back, and the log must be the one that was
    /// applied so far.
    pub(super) fn may_read_on(
        &self,
        numbers: &Numbers,
        version: usize,
        known: &Known,
        broker: &Broker,
    ) -> Result<(), String> {
        let number = numbers.partition;
        let log = broker.partition(number);
        if let Some(hint) = known.hinted.get(&number)
            && (hint.incarnation, hint.offset) > (numbers.incarnation, numbers.from_offset)
        {
            return Err(format!(
                "the broker had told the lane that the database was at {}",
                hint.offset
            ));
        }
        if let Some((old, offset)) = self.anchor
            && old != version
            && offset >= log.start
            && !is_same(log.record(old, offset), log.record(version, offset))
        {
            return Err("the records are of another log, and no operator has accepted it".into());
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, advance: &Advance) {
        let numbers = &advance.numbers;
        self.position = numbers.next_offset;
        self.next_seq = numbers.next_seq;
        self.next_batch = numbers.batch + 1;
        self.parked_open += i64::from(numbers.parked);
        self.head = advance.chain_head;
    }

    pub(super) fn compare(&self, found: &Position) -> Result<(), String> {
        let here = (
            self.incarnation,
            self.position,
            self.next_seq,
            self.next_batch,
        );
        let there = (
            found.incarnation,
            found.position,
            found.next_seq,
            found.next_batch,
        );
        if here == there && self.head == found.chain_head && self.parked_open == found.parked_open {
            return Ok(());
        }
        Err(format!(
            "the position of partition {} is {there:?} in the database, by the commits {here:?}",
            found.partition
        ))
    }
}

fn is_same(one: Option<&Rc<Sent>>, other: Option<&Rc<Sent>>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if Rc::ptr_eq(one, other))
}
