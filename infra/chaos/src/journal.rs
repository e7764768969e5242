//! What Kafka acknowledged: eight bytes for each transaction.

use std::collections::HashSet;

use millrace_publisher::{Error, Receipt};

/// The bits of a packed place that hold the offset.
const OFFSET_BITS: u32 = 48;

/// An offset that the broker no longer knew.
const UNKNOWN: u64 = (1 << OFFSET_BITS) - 1;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its partition.
    pub partition: i32,
    /// Its offset; none where the broker has the record and no longer knows where.
    pub offset: Option<i64>,
}

/// Whether a record is a transaction's first, or sends again what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Nothing of it was acknowledged before.
    First,
    /// As an upstream system does that has lost the answer: it must become a duplicate.
    Again,
}

/// What became of every record that was handed in.
#[derive(Debug, Default)]
pub struct Journal {
    /// By number; 0 where nothing is acknowledged.
    places: Vec<u64>,
    /// The records that send again.
    again: Vec<Place>,
    /// Numbers of records without an answer: they may be in the log, and are handed in once more.
    unanswered: Vec<u64>,
    /// All that were ever without one: they may be in the log twice.
    doubtful: HashSet<u64>,
    /// How many transactions are acknowledged.
    pub acknowledged: u64,
    /// The last error that only another producer helps against.
    pub broken: Option<Error>,
}

impl Journal {
    /// How many transactions were handed in.
    pub fn handed_in(&self) -> u64 {
        self.places.len() as u64
    }

    /// One transaction more; gives its number.
    pub fn add(&mut self) -> u64 {
        self.places.push(0);
        self.places.len() as u64 - 1
    }

    /// Takes an answer.
    pub fn answer(&mut self, number: u64, sending: Sending, answer: Result<Receipt, Error>) {
        match (answer, sending) {
            (Ok(receipt), Sending::First) => {
                *self.packed(number) = pack(receipt);
                self.acknowledged += 1;
            }
            (Ok(receipt), Sending::Again) => self.again.extend(unpack(pack(receipt))),
            (Err(error), sending) => {
                self.doubtful.insert(number);
                if sending == Sending::First {
                    self.unanswered.push(number);
                }
                if matches!(error, Error::Stop(_)) {
                    self.broken = Some(error);
                }
            }
        }
    }

    /// What is to be handed in once more.
    pub fn take_unanswered(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unanswered)
    }

    /// What was taken and not handed in.
    pub fn give_back(&mut self, numbers: &[u64]) {
        self.unanswered.extend(numbers);
    }

    /// Where a transaction was acknowledged.
    pub fn place(&self, number: u64) -> Option<Place> {
        let index = usize::try_from(number).ok()?;
        self.places.get(index).copied().and_then(unpack)
    }

    /// Whether it may be in the log more often than it was acknowledged.
    pub fn is_doubtful(&self, number: u64) -> bool {
        self.doubtful.contains(&number)
    }

    /// How many were ever without an answer.
    pub fn doubtful(&self) -> usize {
        self.doubtful.len()
    }

    /// The records that send again what was acknowledged, by place.
    pub fn again(&self) -> Vec<Place> {
        let mut again = self.again.clone();
        again.sort_unstable();
        again
    }

    fn packed(&mut self, number: u64) -> &mut u64 {
        let index = usize::try_from(number).expect("it was handed in");
        &mut self.places[index]
    }
}

fn pack(receipt: Receipt) -> u64 {
    let partition = u64::from(receipt.partition.unsigned_abs()) + 1;
    let offset = u64::try_from(receipt.offset).unwrap_or(UNKNOWN);
    partition << OFFSET_BITS | offset
}

fn unpack(packed: u64) -> Option<Place> {
    let partition = (packed >> OFFSET_BITS).checked_sub(1)?;
    let offset = packed & UNKNOWN;
    Some(Place {
        partition: i32::try_from(partition).expect("it was packed"),
        offset: (offset != UNKNOWN).then_some(offset.cast_signed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_packing() {
        assert_eq!(unpack(0), None);
        for (partition, offset) in [(0, 0), (11, 1 << 40), (9_999, 5)] {
            let place = unpack(pack(Receipt { partition, offset })).unwrap();
            let offset = Some(offset);
            assert_eq!(place, Place { partition, offset });
        }
        let lost = Receipt {
            partition: 3,
            offset: -1001,
        };
        assert_eq!(unpack(pack(lost)).unwrap().offset, None);
    }
}
