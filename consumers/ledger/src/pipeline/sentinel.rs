//! The ordering sentinel: the records of a key are applied in the order of the log, each once.
//!
//! It looks at what was committed and at nothing that the lane decides by, so a defect there shows here.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;

use crate::record::Batch;

/// Keys share this many slots per partition. A slot holds the last offset of its keys: sharing hides
/// nothing, because all keys of a partition move forward together.
const SLOTS: usize = 1_024;

/// The last applied offset of every key, by partition.
#[derive(Debug, Default)]
pub struct Sentinel {
    partitions: BTreeMap<i32, Slots>,
}

#[derive(Debug)]
struct Slots {
    incarnation: i32,
    last: Box<[i64]>,
}

/// A record that was applied after a later one of its key, or twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What was applied before.
    pub after: i64,
}

impl Sentinel {
    /// The batch is committed: how many of its records are out of order, and the first of them.
    pub fn applied(&mut self, batch: &Batch<'_>) -> (u64, Option<Violation>) {
        let (mut count, mut first) = (0, None);
        for slice in batch.slices() {
            let slots = self.slots(slice.log.partition, slice.log.incarnation);
            for record in batch.records(slice) {
                let Some(key) = batch.key(record) else {
                    continue;
                };
                let last = &mut slots.last[slot(key)];
                if record.offset <= *last {
                    count += 1;
                    first.get_or_insert(Violation {
                        partition: slice.log.partition,
                        offset: record.offset,
                        after: *last,
                    });
                }
                *last = record.offset.max(*last);
            }
        }
        (count, first)
    }

    /// Offsets begin anew with an incarnation.
    fn slots(&mut self, partition: i32, incarnation: i32) -> &mut Slots {
        let fresh = || Slots {
            incarnation,
            last: vec![-1; SLOTS].into(),
        };
        let slots = self.partitions.entry(partition).or_insert_with(fresh);
        if slots.incarnation != incarnation {
            *slots = fresh();
        }
        slots
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits are as good as any"
)]
fn slot(key: &[u8]) -> usize {
    FixedState::with_seed(0).hash_one(key) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Incoming, Intake, LogRange};

    fn apply(sentinel: &mut Sentinel, incarnation: i32, offsets: &[i64]) -> u64 {
        let mut intake = Intake::default();
        for offset in offsets {
            intake.push(Incoming {
                partition: 0,
                offset: *offset,
                timestamp: None,
                key: Some(b"k"),
                value: None,
                headers: std::iter::empty(),
            });
        }
        let range = LogRange {
            partition: 0,
            incarnation,
            from: 0,
            next: 0,
        };
        sentinel.applied(&intake.batch(std::iter::once(range))).0
    }

    #[test]
    fn a_record_that_comes_twice_or_too_late_is_seen() {
        let mut sentinel = Sentinel::default();
        assert_eq!(apply(&mut sentinel, 1, &[3, 4, 9]), 0);
        assert_eq!(apply(&mut sentinel, 1, &[9, 10]), 1);
        assert_eq!(apply(&mut sentinel, 1, &[7, 8, 11]), 2);
        assert_eq!(apply(&mut sentinel, 2, &[0, 1]), 0);
    }
}
