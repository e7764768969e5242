//! Where slices of balances lie, remembered from batch to batch: finding them by key costs as much as changing them.
//!
//! A place is believed with the partition and the last `seq` of the slice that was put there. A `seq` is the last of
//! at most two slices, those of one transaction, and each change of a slice puts it elsewhere with a later one: so
//! nothing else is ever found at a place with the same two. Only a rewrite of the table (`VACUUM FULL`, `CLUSTER`)
//! moves rows as they are, and gives the table another file. What was remembered in vain costs one more try.
//!
//! A partition's places count only while the chain head under its lock is the one that this lane committed last; and
//! none outlives the connection.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::ops::Range;

use foldhash::quality::RandomState;

use crate::chain::Head;
use crate::pipeline::outcome::Delta;
use crate::store::tid::Tid;

/// A set is a cache line of four slots: 16 MiB for a million slices. Beyond, one that is remembered takes another's slot.
const SETS: usize = 1 << 18;
const WAYS: usize = 4;

/// A slot has this many bits for a `seq`, and as many for a place; the rest is a tag. Zero is an empty slot: rows of a
/// page are counted from 1.
const BITS: u32 = 48;
const MASK: u128 = (1 << BITS) - 1;

/// A slice as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) tid: Tid,
    pub(super) last_seq: i64,
}

/// What a lane remembers.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Empty until there is something to remember.
    slots: Vec<u128>,
    hasher: RandomState,
    partitions: HashMap<i32, Known>,
    eras: u64,
    /// The table's file.
    file: Option<i64>,
}

#[derive(Debug, Default)]
struct Known {
    /// What is remembered of another era is not found any more.
    era: u64,
    /// None while a batch is in hand: it may come to nothing.
    head: Option<Head>,
}

/// The name under which a slice is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    set: u32,
    tag: u32,
}

impl Places {
    /// The partitions are locked, and their chains end like this.
    pub(super) fn locked(&mut self, heads: impl Iterator<Item = (i32, Head)>) {
        for (partition, head) in heads {
            let known = self.partitions.entry(partition).or_default();
            if known.head.take() != Some(head) {
                self.eras += 1;
                known.era = self.eras;
            }
        }
    }

    /// The batch is committed, and the chains end like this.
    pub(super) fn committed(&mut self, heads: &[(i32, Head)]) {
        for (partition, head) in heads {
            self.partitions.entry(*partition).or_default().head = Some(*head);
        }
    }

    /// The table's file, as it is now: false when what was remembered is of another.
    pub(super) fn is_in(&mut self, file: i64) -> bool {
        self.file.replace(file).is_none_or(|known| known == file)
    }

    pub(super) fn name(&self, delta: &Delta<'_>) -> Name {
        let era = self
            .partitions
            .get(&delta.partition)
            .map_or(0, |known| known.era);
        Name::of(
            self.hasher
                .hash_one((delta.partition, era, delta.account, delta.currency)),
        )
    }

    pub(super) fn get(&self, name: Name) -> Option<Found> {
        let set = self.slots.get(name.slots())?;
        let slot = *set.iter().find(|slot| name.is_of(**slot))?;
        let seq = u64::try_from(slot & MASK).ok()?;
        Some(Found {
            tid: Tid::from_bits(u64::try_from(slot >> BITS & MASK).ok()?),
            last_seq: i64::try_from(seq).ok()?,
        })
    }

    pub(super) fn remember(&mut self, name: Name, found: Found) {
        let Some(seq) = u128::try_from(found.last_seq).ok().filter(|s| *s <= MASK) else {
            return self.forget(name);
        };
        if self.slots.is_empty() {
            self.slots = vec![0; SETS * WAYS];
        }
        let set = &mut self.slots[name.slots()];
        let same = set.iter().position(|slot| name.is_of(*slot));
        let free = || set.iter().position(|slot| *slot == 0);
        // Any will do: which one is as good as chance.
        let any = || (seq % WAYS as u128) as usize;
        let way = same.or_else(free).unwrap_or_else(any);
        set[way] = u128::from(name.tag) << (2 * BITS) | u128::from(found.tid.bits()) << BITS | seq;
    }

    /// Somebody who does not tell where it lies by then has changed the slice.
    pub(super) fn forget(&mut self, name: Name) {
        let set = self.slots.get_mut(name.slots());
        for slot in set.into_iter().flatten() {
            if name.is_of(*slot) {
                *slot = 0;
            }
        }
    }
}

impl Name {
    #[expect(clippy::cast_possible_truncation, reason = "a half each")]
    fn of(hash: u64) -> Self {
        Self {
            set: (hash >> 32) as u32,
            tag: hash as u32,
        }
    }

    fn slots(self) -> Range<usize> {
        let first = self.set as usize % SETS * WAYS;
        first..first + WAYS
    }

    fn is_of(self, slot: u128) -> bool {
        slot != 0 && slot >> (2 * BITS) == u128::from(self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: i32 = 3;

    fn delta(account: &str) -> Delta<'_> {
        Delta {
            account,
            currency: "EUR",
            partition: PARTITION,
            debits: 1,
            credits: 0,
            transactions: 1,
            last_occurred_at: 0,
            last_seq: 0,
            round: 0,
        }
    }

    fn found(number: u64) -> Found {
        Found {
            tid: Tid::from_bits(number << 16 | 1),
            last_seq: i64::try_from(number).unwrap(),
        }
    }

    fn locked(places: &mut Places, head: u8) {
        places.locked([(PARTITION, [head; 32])].into_iter());
    }

    #[test]
    fn a_slice_is_found_where_it_was_put_last() {
        let mut places = Places::default();
        let name = places.name(&delta("a"));
        assert_eq!(places.get(name), None);
        for number in [1, 2, (1 << 48) - 1] {
            places.remember(name, found(number));
            assert_eq!(places.get(name), Some(found(number)));
        }
        assert_eq!(places.get(places.name(&delta("b"))), None);
        // What does not fit is not remembered, and what was there before is not true any more.
        places.remember(name, found(1 << 48));
        assert_eq!(places.get(name), None);
        places.remember(name, found(4));
        places.forget(name);
        assert_eq!(places.get(name), None);
    }

    #[test]
    fn what_is_remembered_counts_while_nobody_else_has_written() {
        let mut places = Places::default();
        let is_known = |places: &Places| places.get(places.name(&delta("a"))).is_some();
        let remember = |places: &mut Places| places.remember(places.name(&delta("a")), found(1));
        locked(&mut places, 0);
        remember(&mut places);
        places.committed(&[(PARTITION, [1; 32])]);
        locked(&mut places, 1);
        assert!(is_known(&places), "this lane's own");
        // The batch comes to nothing.
        locked(&mut places, 1);
        assert!(!is_known(&places));
        remember(&mut places);
        places.committed(&[(PARTITION, [2; 32])]);
        locked(&mut places, 3);
        assert!(!is_known(&places), "another's");
    }

    #[test]
    fn more_than_there_are_slots_take_each_others() {
        let mut places = Places::default();
        let names = |n: u32| (0..n).map(|tag| Name { set: 7, tag });
        for (name, number) in names(4).zip(1..) {
            places.remember(name, found(number));
        }
        assert!(names(4).all(|name| places.get(name).is_some()));
        for (name, number) in names(100).zip(1..) {
            places.remember(name, found(number));
        }
        let kept: Vec<_> = names(100).filter_map(|name| places.get(name)).collect();
        assert_eq!(kept.len(), WAYS);
        assert!(kept.contains(&found(100)));
    }

    #[test]
    fn a_rewritten_table_is_told_once() {
        let mut places = Places::default();
        let told = [5, 5, 6, 6].map(|file| places.is_in(file));
        assert_eq!(told, [true, true, false, true]);
    }
}
