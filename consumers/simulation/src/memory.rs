//! A database in memory: the tables and constraints of the migrations, transactions that see what is
//! committed, and states to go back to.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use foldhash::fast::FixedState;
use millrace_ledger::chain::{Chain, GENESIS, Head, Numbers};
use millrace_ledger::kafka::log::Topic;
use millrace_ledger::parking::Selection;
use millrace_ledger::pipeline::plan::Outcome;
use millrace_ledger::store::positions::{Acceptance, Found};
use millrace_ledger::store::{
    Advance, Attached, Error, LockWait, OpenParked, PartitionStatus, Policies, Position, Store,
};
use millrace_rules::{Currency, Limit, Status};
use millrace_schemas::partition_of;
use uuid::Uuid;

use crate::backend::{Backend, Policy, PolicyChange};
use crate::oracle::Oracle;
use crate::rows::{Delta, LedgerRow, RawRow, RefusedRow, ResolutionRow, Rows, Slice};
use crate::workload::POISON_AMOUNT;

/// The key of a row of an append-only table.
type Key = (i32, i64);

/// The tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    topic: Option<Topic>,
    pub positions: BTreeMap<i32, Position>,
    pub batches: BTreeMap<Key, (Numbers, Head)>,
    pub ledger: BTreeMap<Key, LedgerRow>,
    ids: HashMap<[u8; 16], Key, FixedState>,
    pub refused: BTreeMap<Key, RefusedRow>,
    pub parked: BTreeMap<Key, RawRow>,
    /// By what they resolve.
    pub resolutions: BTreeMap<Key, ResolutionRow>,
    /// Whether the rows that were refused would be taken by now.
    is_mended: bool,
    pub balances: HashMap<(Rc<str>, &'static str, i32), Slice, FixedState>,
    statuses: BTreeMap<Rc<str>, Status>,
    /// Without an account: the default.
    limits: BTreeMap<(Option<Rc<str>>, Option<&'static str>), Limit>,
}

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

impl Tables {
    /// What the constraints say of these rows, in the order in which they are written.
    fn check(&self, rows: &Rows) -> Result<(), Error> {
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

    fn is_where(&self, numbers: &Numbers) -> bool {
        self.positions.get(&numbers.partition).is_some_and(|found| {
            found.incarnation == numbers.incarnation
                && found.position == numbers.from_offset
                && found.next_seq == numbers.first_seq
                && found.next_batch == numbers.batch
        })
    }

    fn apply(&mut self, rows: Rows) {
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

    fn advance(&mut self, advance: &Advance) {
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

    fn is_open(&self, row: &RawRow) -> bool {
        !self.resolutions.contains_key(&(row.partition, row.seq))
    }

    /// The open records of a partition after `after_seq`.
    fn open(&self, partition: i32, after_seq: i64) -> impl Iterator<Item = &RawRow> {
        let rows = self
            .parked
            .range((partition, after_seq + 1)..(partition + 1, 0));
        rows.map(|(_, row)| row).filter(|row| self.is_open(row))
    }

    fn begin_incarnation(&mut self, acceptance: Acceptance<'_>) -> Result<(), Error> {
        let seen = acceptance.seen;
        let found = self.positions.get_mut(&seen.partition);
        let Some(position) = found.filter(|found| **found == seen) else {
            return Err(Error::Retry("the partition has moved meanwhile".into()));
        };
        let numbers = Numbers {
            partition: seen.partition,
            batch: seen.next_batch,
            incarnation: seen.incarnation + 1,
            from_offset: acceptance.start_offset,
            next_offset: acceptance.start_offset,
            first_seq: seen.next_seq,
            next_seq: seen.next_seq,
            recorded_at: acceptance.now,
            ..Numbers::default()
        };
        position.incarnation = numbers.incarnation;
        let chain_head = Chain::after(&seen.chain_head).close(&numbers);
        position.anchor = None;
        self.advance(&Advance {
            numbers,
            chain_head,
            anchor: None,
        });
        Ok(())
    }

    fn set_policy(&mut self, change: &PolicyChange) {
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
