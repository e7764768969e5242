//! A database in memory: the tables and constraints of the migrations, transactions that see what is
//! committed, and states to go back to.

use std::cell::RefCell;
use std::rc::Rc;

use millrace_ledger::chain::GENESIS;
use millrace_ledger::kafka::log::Topic;
use millrace_ledger::parking::Selection;
use millrace_ledger::pipeline::outcome::Outcome;
use millrace_ledger::store::positions::{Acceptance, Found};
use millrace_ledger::store::{
    Attached, Error, LockWait, OpenParked, PartitionStatus, Policies, Position, Served, Store,
};
use millrace_rules::Currency;
use uuid::Uuid;

use crate::backend::{Backend, PolicyChange};
use crate::oracle::Oracle;
use crate::rows::{RawRow, Rows};
use crate::tables::Tables;

/// A database in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    tables: Rc<RefCell<Tables>>,
    kept: RefCell<Option<Tables>>,
    can_go_back: bool,
}

impl MemoryBackend {
    /// An empty one. Where it cannot go back, a run goes the same way as one over Postgres.
    pub fn new(can_go_back: bool) -> Self {
        Self {
            tables: Rc::default(),
            kept: RefCell::default(),
            can_go_back,
        }
    }
}

/// One connection to it.
#[derive(Debug)]
pub struct MemoryStore {
    tables: Rc<RefCell<Tables>>,
    /// What the open transaction has written.
    written: Option<Rows>,
}

impl Store for MemoryStore {
    async fn attach(&mut self, topic: &Topic, starts: &[(i32, i64)]) -> Result<Attached, Error> {
        let mut tables = self.tables.borrow_mut();
        let known = tables.topic.get_or_insert_with(|| topic.clone()).clone();
        let is_its = known.name == topic.name && known.partitions == topic.partitions;
        let mut positions = Vec::new();
        for (partition, start) in starts {
            if is_its {
                tables.positions.entry(*partition).or_insert(Position {
                    partition: *partition,
                    incarnation: 1,
                    position: *start,
                    next_seq: 0,
                    next_batch: 0,
                    chain_head: GENESIS,
                    policy_version: 0,
                    parked_open: 0,
                    anchor: None,
                });
            }
            positions.extend(tables.positions.get(partition).copied());
        }
        Ok(Attached {
            database: DATABASE,
            topic: known,
            served: Served::default(),
            positions,
        })
    }

    async fn lock(&mut self, partitions: &[i32], _: LockWait) -> Result<Vec<Position>, Error> {
        let tables = self.tables.borrow();
        let positions = partitions.iter().map(|partition| {
            let position = tables.positions.get(partition).copied();
            position.ok_or_else(|| Error::Unavailable("not all partitions are there".into()))
        });
        positions.collect()
    }

    async fn known(&mut self, ids: &[[u8; 16]]) -> Result<Vec<([u8; 16], [u8; 32])>, Error> {
        let tables = self.tables.borrow();
        let known = ids.iter().filter_map(|id| {
            let key = tables.ids.get(id)?;
            Some((*id, tables.ledger[key].digest))
        });
        Ok(known.collect())
    }

    async fn held(&mut self, keys: &[(i32, &[u8])]) -> Result<Vec<(i32, Vec<u8>)>, Error> {
        let tables = self.tables.borrow();
        let held = keys.iter().filter(|(partition, key)| {
            let mut open = tables.open(*partition, -1);
            open.any(|row| row.key.as_deref() == Some(*key))
        });
        Ok(held
            .map(|(partition, key)| (*partition, key.to_vec()))
            .collect())
    }

    async fn policies(&mut self, accounts: &[&str]) -> Result<Policies, Error> {
        let tables = self.tables.borrow();
        let mut policies = Policies {
            any_limits: tables.limits.keys().any(|(account, _)| account.is_some()),
            any_statuses: !tables.statuses.is_empty(),
            ..Policies::default()
        };
        for ((account, currency), limit) in &tables.limits {
            let currency = currency.and_then(Currency::parse);
            match account {
                None => policies.default_limits.push((currency, *limit)),
                Some(account) if accounts.contains(&&**account) => {
                    policies
                        .limits
                        .push((account.to_string(), currency, *limit));
                }
                Some(_) => {}
            }
        }
        for account in accounts {
            if let Some(status) = tables.statuses.get(*account) {
                policies.statuses.push(((*account).to_owned(), *status));
            }
        }
        Ok(policies)
    }

    async fn funds(&mut self, accounts: &[(&str, Currency)]) -> Result<Vec<i128>, Error> {
        let tables = self.tables.borrow();
        let partitions = tables.topic.as_ref().map_or(0, |topic| topic.partitions);
        let sum = |(account, currency): &(&str, Currency)| {
            let account: Rc<str> = (*account).into();
            (0..partitions)
                .filter_map(|p| {
                    tables
                        .balances
                        .get(&(Rc::clone(&account), currency.code(), p))
                })
                .map(|slice| slice.credits - slice.debits)
                .sum()
        };
        Ok(accounts.iter().map(sum).collect())
    }

    async fn write(&mut self, outcome: &Outcome<'_>) -> Result<(), Error> {
        let rows = Rows::of(outcome);
        self.tables.borrow().check(&rows)?;
        self.written = Some(rows);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        if let Some(rows) = self.written.take() {
            let mut tables = self.tables.borrow_mut();
            // Again, because nothing keeps a transaction without locks from being overtaken.
            tables.check(&rows)?;
            tables.apply(rows);
        }
        Ok(())
    }

    async fn end_frozen(&mut self, _: &[i32]) -> Result<bool, Error> {
        Ok(false)
    }

    async fn open_parked(
        &mut self,
        partition: i32,
        selection: &Selection,
        after_seq: i64,
        records_max: usize,
    ) -> Result<Vec<OpenParked>, Error> {
        let tables = self.tables.borrow();
        let is_chosen = |row: &RawRow| {
            selection
                .key
                .as_ref()
                .is_none_or(|key| row.key.as_ref() == Some(key))
                && selection.reason.is_none_or(|reason| row.reason == reason)
                && selection
                    .log_offset
                    .is_none_or(|offset| row.log_offset == offset)
                && selection.seq.is_none_or(|seq| row.seq == seq)
        };
        let chosen = tables
            .open(partition, after_seq)
            .filter(|row| is_chosen(row));
        let mut keys: Vec<_> = chosen.filter_map(|row| row.key.as_ref()).collect();
        keys.extend(&selection.also_keys);
        let wanted = tables.open(partition, after_seq).filter(|row| {
            is_chosen(row) || row.key.as_ref().is_some_and(|key| keys.contains(&key))
        });
        let open = wanted.take(records_max).map(|row| OpenParked {
            partition,
            seq: row.seq,
            log_offset: row.log_offset,
            record_timestamp: row.record_timestamp,
            key: row.key.clone(),
            value: row.value.clone(),
            headers: row.headers.clone(),
            is_chosen: is_chosen(row),
            has_earlier: row.key.is_some()
                && tables
                    .open(partition, -1)
                    .any(|earlier| earlier.seq <= after_seq && earlier.key == row.key),
        });
        Ok(open.collect())
    }

    fn connections(&self) -> u64 {
        1
    }

    async fn rollback(&mut self) {
        self.written = None;
    }

    async fn publish_status(&mut self, _: &[PartitionStatus]) -> Result<(), Error> {
        Ok(())
    }
}

/// Which database this is.
const DATABASE: Uuid = Uuid::from_u128(1);

impl Backend for MemoryBackend {
    type Store = MemoryStore;

    fn connect(&self, _: u64) -> MemoryStore {
        MemoryStore {
            tables: Rc::clone(&self.tables),
            written: None,
        }
    }

    async fn end(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn set_policy(&self, change: &PolicyChange) -> Result<(), Error> {
        self.tables.borrow_mut().set_policy(change);
        Ok(())
    }

    async fn mend(&self) -> Result<(), Error> {
        self.tables.borrow_mut().is_mended = true;
        Ok(())
    }

    async fn position(&self, partition: i32) -> Result<Option<Found>, Error> {
        let position = self.tables.borrow().positions.get(&partition).copied();
        Ok(position.map(|position| Found {
            database: DATABASE,
            position,
        }))
    }

    async fn accept(&self, _: u64, acceptance: Acceptance<'_>) -> Result<(), Error> {
        self.tables.borrow_mut().begin_incarnation(acceptance)
    }

    fn can_go_back(&self) -> bool {
        self.can_go_back
    }

    fn keep(&self) {
        *self.kept.borrow_mut() = Some(self.tables.borrow().clone());
    }

    fn go_back(&self) {
        if let Some(kept) = &*self.kept.borrow() {
            *self.tables.borrow_mut() = kept.clone();
        }
    }

    async fn compare(&self, oracle: &Oracle) -> Result<(), String> {
        oracle.compare(&self.tables.borrow())
    }
}
