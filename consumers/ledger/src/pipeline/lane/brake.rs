//! The brake: a topic that cannot be understood is not parked record by record.

use std::collections::BTreeMap;

use crate::pipeline::decode::Decoded;
use crate::record::Batch;

/// How many records must have been parked before the share counts: single poison records are normal.
const PARKED_MIN: u64 = 50;

/// Over how many records before a batch the share is taken too, about: older ones count half. Batches of a
/// few records would never have enough by themselves.
const WINDOW: u64 = 200;

/// How much of each partition was parked lately.
#[derive(Debug, Default)]
pub(super) struct Brake {
    lately: BTreeMap<i32, Counts>,
}

/// Records of one partition, and how many of them have to be parked for what they are: those that only wait
/// behind another one do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) parked: u64,
}

impl Brake {
    /// The first partition of which more than `percent` would be parked, of the batch alone or with what
    /// was before, with those counts.
    pub(super) fn trips(&self, batch: &[(i32, Counts)], percent: u8) -> Option<(i32, Counts)> {
        batch.iter().find_map(|(partition, counts)| {
            [*counts, self.with(*partition, *counts)]
                .into_iter()
                .find(|counts| counts.exceeds(percent))
                .map(|counts| (*partition, counts))
        })
    }

    /// The batch is applied.
    pub(super) fn applied(&mut self, batch: &[(i32, Counts)]) {
        for (partition, counts) in batch {
            let mut lately = self.with(*partition, *counts);
            while lately.records > WINDOW {
                lately.records /= 2;
                lately.parked /= 2;
            }
            self.lately.insert(*partition, lately);
        }
    }

    fn with(&self, partition: i32, counts: Counts) -> Counts {
        let lately = self.lately.get(&partition).copied().unwrap_or_default();
        Counts {
            records: lately.records + counts.records,
            parked: lately.parked + counts.parked,
        }
    }
}

impl Counts {
    fn exceeds(self, percent: u8) -> bool {
        self.parked >= PARKED_MIN && self.parked * 100 > self.records * u64::from(percent)
    }
}

/// The counts of each partition of a decoded batch.
pub(super) fn count(batch: &Batch<'_>, decoded: &[Decoded<'_>]) -> Vec<(i32, Counts)> {
    let mut rest = decoded;
    batch
        .slices()
        .iter()
        .map(|slice| {
            let (own, after) = rest.split_at(batch.records(slice).len());
            rest = after;
            let is_parked = |decoded: &&Decoded<'_>| matches!(decoded, Decoded::Parked { .. });
            let counts = Counts {
                records: own.len() as u64,
                parked: own.iter().filter(is_parked).count() as u64,
            };
            (slice.log.partition, counts)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(records: u64, parked: u64) -> [(i32, Counts); 1] {
        [(3, Counts { records, parked })]
    }

    #[test]
    fn single_poison_records_are_normal_and_a_topic_of_them_is_not() {
        let mut brake = Brake::default();
        for _ in 0..49 {
            assert_eq!(brake.trips(&counts(1, 1), 50), None);
            brake.applied(&counts(1, 1));
        }
        assert!(brake.trips(&counts(1, 1), 50).is_some());
        assert_eq!(brake.trips(&counts(1, 1), 100), None, "never");
        assert_eq!(brake.trips(&counts(1_000, 400), 50), None);
        assert!(brake.trips(&counts(1_000, 500), 50).is_some());
    }

    #[test]
    fn a_batch_that_cannot_be_understood_is_enough_whatever_was_before() {
        let mut brake = Brake::default();
        brake.applied(&counts(1_000_000, 0));
        let found = brake.trips(&counts(90, 50), 50).map(|(_, counts)| counts);
        let batch = Counts {
            records: 90,
            parked: 50,
        };
        assert_eq!(found, Some(batch));
        assert_eq!(brake.trips(&counts(90, 49), 50), None);
        let mut parked = 0;
        while brake.trips(&counts(40, 40), 50).is_none() {
            brake.applied(&counts(40, 40));
            parked += 40;
        }
        assert!(
            parked <= WINDOW,
            "in small batches soon, not after {parked}"
        );
    }

    #[test]
    fn what_is_long_ago_counts_less_and_less() {
        let mut brake = Brake::default();
        brake.applied(&counts(900, 440));
        for _ in 0..10 {
            brake.applied(&counts(1_000, 0));
        }
        assert_eq!(brake.trips(&counts(100, 49), 50), None);
        assert_eq!(
            brake.trips(&counts(2_000, 1_900), 50).map(|(p, _)| p),
            Some(3)
        );
    }
}
