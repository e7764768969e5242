//! The tables of the database in memory, with the constraints of the migrations.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use foldhash::fast::FixedState;
use millrace_ledger::chain::{Head, Numbers};
use millrace_ledger::kafka::log::Topic;
use millrace_ledger::store::positions::Acceptance;
use millrace_ledger::store::{Advance, Error, Position};
use millrace_rules::{Currency, Limit, Status};
use millrace_schemas::partition_of;

use crate::backend::{Policy, PolicyChange};
use crate::rows::{Delta, LedgerRow, RawRow, RefusedRow, ResolutionRow, Rows, Slice};
use crate::workload::POISON_AMOUNT;

/// The key of a row of an append-only table.
pub(crate) type Key = (i32, i64);

/// The tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub topic: Option<Topic>,
    pub positions: BTreeMap<i32, Position>,
    pub batches: BTreeMap<Key, (Numbers, Head)>,
    pub ledger: BTreeMap<Key, LedgerRow>,
    pub ids: HashMap<[u8; 16], Key, FixedState>,
    pub refused: BTreeMap<Key, RefusedRow>,
    pub parked: BTreeMap<Key, RawRow>,
    /// By what they resolve.
    pub resolutions: BTreeMap<Key, ResolutionRow>,
    /// Whether the rows that were refused would be taken by now.
    pub is_mended: bool,
    pub balances: HashMap<(Rc<str>, &'static str, i32), Slice, FixedState>,
    pub statuses: BTreeMap<Rc<str>, Status>,
    /// Without an account: the default.
    pub limits: BTreeMap<(Option<Rc<str>>, Option<&'static str>), Limit>,
}

impl Tables {
    /// What the constraints say of these rows, in the order in which they are written.
    pub fn check(&self, rows: &Rows) -> Result<(), Error> {
        for (place, row) in rows.ledger.iter().enumerate() {
            let is_twice = || rows.ledger[..place].iter().any(|other| other.id == row.id);
            if row.amount == POISON_AMOUNT && !self.is_mended {
                return Err(Error::Row("not_this".into()));
            }
            if self.ids.contains_key(&row.id) || is_twice() {
                return Err(Error::Retry("ledger_id_key".into()));
            }
            if self.ledger.contains_key(&(row.partition, row.seq)) {
                return Err(Error::Contradiction("ledger_pkey".into()));
            }
        }
        let refused = rows.refused.iter().map(|row| (&row.raw, true));
        let parked = rows.parked.iter().map(|row| (row, false));
        for (row, is_refused) in refused.chain(parked) {
            let key = (row.partition, row.seq);
            let is_there = if is_refused {
                self.refused.contains_key(&key)
            } else {
                self.parked.contains_key(&key)
            };
            if is_there {
                return Err(Error::Contradiction("refused_pkey or parked_pkey".into()));
            }
        }
        for row in &rows.resolutions {
            if self
                .resolutions
                .contains_key(&(row.partition, row.parked_seq))
            {
                return Err(Error::Unavailable("it is resolved already".into()));
            }
        }
        for Advance { numbers, .. } in &rows.advances {
            if self
                .batches
                .contains_key(&(numbers.partition, numbers.batch))
            {
                return Err(Error::Contradiction("batches_pkey".into()));
            }
            if !self.is_where(numbers) {
                return Err(Error::Contradiction("the position is elsewhere".into()));
            }
        }
        Ok(())
    }

    pub fn is_where(&self, numbers: &Numbers) -> bool {
        self.positions.get(&numbers.partition).is_some_and(|found| {
            found.incarnation == numbers.incarnation
                && found.position == numbers.from_offset
                && found.next_seq == numbers.first_seq
                && found.next_batch == numbers.batch
        })
    }

    pub fn apply(&mut self, rows: Rows) {
        for row in rows.ledger {
            let key = (row.partition, row.seq);
            self.ids.insert(row.id, key);
            self.ledger.insert(key, row);
        }
        for row in rows.refused {
            self.refused.insert((row.raw.partition, row.raw.seq), row);
        }
        for row in rows.parked {
            self.parked.insert((row.partition, row.seq), row);
        }
        for row in rows.resolutions {
            self.resolutions
                .insert((row.partition, row.parked_seq), row);
        }
        for Delta {
            account,
            currency,
            partition,
            slice,
        } in rows.balances
        {
            let key = (account, currency, partition);
            self.balances.entry(key).or_default().add(&slice);
        }
        for advance in rows.advances {
            self.advance(&advance);
        }
    }

    pub fn advance(&mut self, advance: &Advance) {
        let numbers = &advance.numbers;
        self.batches.insert(
            (numbers.partition, numbers.batch),
            (*numbers, advance.chain_head),
        );
        if let Some(position) = self.positions.get_mut(&numbers.partition) {
            position.position = numbers.next_offset;
            position.next_seq = numbers.next_seq;
            position.next_batch = numbers.batch + 1;
            position.chain_head = advance.chain_head;
            position.parked_open += i64::from(numbers.parked);
            position.anchor = advance.anchor.or(position.anchor);
        }
    }

    pub fn is_open(&self, row: &RawRow) -> bool {
        !self.resolutions.contains_key(&(row.partition, row.seq))
    }

    /// The open records of a partition after `after_seq`.
    pub fn open(&self, partition: i32, after_seq: i64) -> impl Iterator<Item = &RawRow> {
        let rows = self
            .parked
            .range((partition, after_seq + 1)..(partition + 1, 0));
        rows.map(|(_, row)| row).filter(|row| self.is_open(row))
    }

    pub fn begin_incarnation(&mut self, acceptance: Acceptance<'_>) -> Result<(), Error> {
        let seen = acceptance.seen;
        let found = self.positions.get_mut(&seen.partition);
        let Some(position) = found.filter(|found| **found == seen) else {
            return Err(Error::Retry("the partition has moved meanwhile".into()));
        };
        let advance = acceptance.advance();
        position.incarnation = advance.numbers.incarnation;
        position.anchor = None;
        self.advance(&advance);
        Ok(())
    }

    pub fn set_policy(&mut self, change: &PolicyChange) {
        let home = match (&change.account, change.policy) {
            (Some(account), Policy::Limit(..)) => {
                let partitions = self.topic.as_ref().map_or(0, |topic| topic.partitions);
                Some(partition_of(account.as_bytes(), partitions))
            }
            _ => None,
        };
        match change.policy {
            Policy::Limit(currency, limit) => {
                let key = (change.account.clone(), currency.map(Currency::code));
                self.limits.insert(key, limit);
            }
            Policy::Status(status) => {
                if let Some(account) = &change.account {
                    self.statuses.remove(account);
                    if status != Status::Open {
                        self.statuses.insert(Rc::clone(account), status);
                    }
                }
            }
        }
        for (partition, position) in &mut self.positions {
            if home.is_none_or(|home| home == *partition) {
                position.policy_version += 1;
            }
        }
    }
}
