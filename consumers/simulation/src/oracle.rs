//! The oracle: what must have become of every record, worked out again from the log and in the order of the
//! commits, by other code than the ledger's.
//!
//! Every commit is looked at when it happens. A batch must begin where the last one of its partition ended, and
//! give each record of its range one verdict: the one that [`judge`](super::judge) works out.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use foldhash::fast::FixedState;
use millrace_ledger::chain::{self, Chain, GENESIS, Head, Numbers};
use millrace_ledger::store::positions::Acceptance;
use millrace_ledger::store::{Advance, Anchor, Attached, Position};
use millrace_rules::{ParkReason, Reason, Verdict};

use crate::backend::PolicyChange;
use crate::broker::{Broker, place};
use crate::judge::{Allowed, Policies, Purse};
use crate::memory::Tables;
use crate::rows::{LedgerRow, RawRow, RefusedRow, ResolutionRow, Rows, Slice};
use crate::sessions::Known;
use crate::workload::{Move, Sense, Sent};

/// What is known of one partition.
#[derive(Debug, Clone)]
struct Partition {
    /// Whether the database has a position of it.
    has_begun: bool,
    incarnation: i32,
    position: i64,
    next_seq: i64,
    next_batch: i64,
    head: Head,
    parked_open: i64,
    /// The last applied record: its offset, and in which version of the log.
    anchor: Option<(usize, i64)>,
    /// Open parked records by `seq`.
    open: BTreeMap<i64, Waiting>,
}

/// A parked record that waits.
#[derive(Debug, Clone)]
struct Waiting {
    offset: i64,
    sent: Rc<Sent>,
}

type SliceKey = (Rc<str>, &'static str, i32);

/// What the database must hold.
#[derive(Debug, Clone)]
pub struct Oracle {
    partitions: Vec<Partition>,
    /// Digest by id.
    ids: HashMap<[u8; 16], [u8; 32], FixedState>,
    purses: HashMap<(Rc<str>, &'static str), Purse, FixedState>,
    /// By the verdicts.
    slices: HashMap<SliceKey, Slice, FixedState>,
    /// By the changes that were written.
    stored: HashMap<SliceKey, Slice, FixedState>,
    policies: Policies,
    commits: u64,
    history: Vec<Rc<Rows>>,
    /// The state that a failover goes back to.
    kept: Option<Box<Oracle>>,
    /// Records with a verdict.
    pub(crate) applied: u64,
    /// Parked records that were replayed or discarded.
    pub(crate) resolved: u64,
}

/// The rows of a batch that were not looked at yet, in their order.
struct Unseen<'r> {
    ledger: &'r [LedgerRow],
    refused: &'r [RefusedRow],
    parked: &'r [RawRow],
    resolutions: &'r [ResolutionRow],
}

impl Unseen<'_> {
    fn is_empty(&self) -> bool {
        self.ledger.is_empty()
            && self.refused.is_empty()
            && self.parked.is_empty()
            && self.resolutions.is_empty()
    }
}

impl Oracle {
    pub(crate) fn new(partitions: i32) -> Self {
        let partition = Partition {
            has_begun: false,
            incarnation: 1,
            position: 0,
            next_seq: 0,
            next_batch: 0,
            head: GENESIS,
            parked_open: 0,
            anchor: None,
            open: BTreeMap::new(),
        };
        Self {
            partitions: vec![partition; place(partitions)],
            ids: HashMap::default(),
            purses: HashMap::default(),
            slices: HashMap::default(),
            stored: HashMap::default(),
            policies: Policies::default(),
            commits: 0,
            history: Vec::new(),
            kept: None,
            applied: 0,
            resolved: 0,
        }
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// A lane has read positions: they must be those of the commits.
    pub(crate) fn attached(&mut self, attached: &Attached) -> Result<(), String> {
        for found in &attached.positions {
            let partition = &mut self.partitions[place(found.partition)];
            if !partition.has_begun {
                partition.has_begun = true;
                partition.position = found.position;
            }
            partition.compare(found)?;
        }
        Ok(())
    }

    /// A batch is committed.
    pub(crate) fn commit(
        &mut self,
        rows: &Rc<Rows>,
        known: &Known,
        broker: &Broker,
    ) -> Result<(), String> {
        self.commits += 1;
        let mut unseen = Unseen {
            ledger: &rows.ledger,
            refused: &rows.refused,
            parked: &rows.parked,
            resolutions: &rows.resolutions,
        };
        for advance in &rows.advances {
            self.advance(advance, &mut unseen, rows.recorded_at, known, broker)
                .map_err(|why| describe(&advance.numbers, &why))?;
        }
        if !unseen.is_empty() {
            return Err("a batch has rows that belong to none of its records".into());
        }
        self.add_slices(rows)?;
        self.history.push(Rc::clone(rows));
        Ok(())
    }

    fn advance(
        &mut self,
        advance: &Advance,
        unseen: &mut Unseen<'_>,
        recorded_at: i64,
        known: &Known,
        broker: &Broker,
    ) -> Result<(), String> {
        let numbers = &advance.numbers;
        let number = numbers.partition;
        let log = broker.partition(number);
        let version = known.versions.get(&number).copied();
        let version = version.unwrap_or_else(|| log.version());
        let partition = &self.partitions[place(number)];
        partition.continues(numbers)?;
        if numbers.next_offset > numbers.from_offset {
            partition.may_read_on(numbers, version, known, broker)?;
        }
        let records = log.records(version, numbers.from_offset, numbers.next_offset);
        let mut chain = Chain::after(&partition.head);
        let mut counted = Numbers {
            posted: 0,
            duplicate: 0,
            rejected: 0,
            refused: 0,
            parked: 0,
            discarded: 0,
            next_seq: numbers.first_seq,
            skipped: numbers.next_offset - numbers.from_offset - signed(records.len()),
            ..*numbers
        };
        let at = (recorded_at, known.commits);
        for (offset, sent) in &records {
            let allowed = self.judge(number, sent, known.commits);
            self.record(
                (*offset, sent),
                allowed,
                unseen,
                (&mut counted, &mut chain),
                at.0,
            )
            .map_err(|why| format!("offset {offset}: {why}"))?;
            self.applied += 1;
        }
        self.resolve(unseen, (&mut counted, &mut chain), at)?;
        if counted != *numbers {
            return Err(format!("the records count as {counted:?}"));
        }
        if chain.close(numbers) != advance.chain_head {
            return Err("the rows do not lead to the chain head".into());
        }
        let last = records.last();
        if advance.anchor != last.map(|(offset, sent)| anchor(*offset, sent)) {
            return Err("the anchor is not the last record".into());
        }
        let partition = &mut self.partitions[place(number)];
        partition.advance(advance);
        if let Some((offset, _)) = last {
            partition.anchor = Some((version, *offset));
        }
        Ok(())
    }

    /// One record: its verdict, its row and what that changes.
    fn record(
        &mut self,
        (offset, sent): (i64, &Rc<Sent>),
        allowed: Allowed,
        unseen: &mut Unseen<'_>,
        (counted, chain): (&mut Numbers, &mut Chain),
        recorded_at: i64,
    ) -> Result<(), String> {
        let partition = counted.partition;
        let seq = counted.next_seq;
        let is_its = |p: i32, s: i64, o: i64| (p, s, o) == (partition, seq, offset);
        let verdict = if let Some((row, rest)) = unseen.ledger.split_first()
            && is_its(row.partition, row.seq, row.log_offset)
        {
            unseen.ledger = rest;
            row.add_to(chain, recorded_at);
            counted.next_seq += 1;
            self.bind(row, sent)?;
            match Reason::from_code(row.verdict) {
                Some(reason) => Verdict::Rejected(reason),
                None => Verdict::Posted,
            }
        } else if let Some((row, rest)) = unseen.refused.split_first()
            && is_its(row.raw.partition, row.raw.seq, row.raw.log_offset)
        {
            unseen.refused = rest;
            row.add_to(chain, recorded_at);
            counted.next_seq += 1;
            row.raw.is_of(sent)?;
            let reason = Reason::from_code(row.raw.reason).filter(|reason| !reason.binds_id());
            Verdict::Rejected(reason.ok_or("a refused row has no reason for that")?)
        } else if let Some((row, rest)) = unseen.parked.split_first()
            && is_its(row.partition, row.seq, row.log_offset)
        {
            unseen.parked = rest;
            row.add_to(chain, recorded_at);
            counted.next_seq += 1;
            row.is_of(sent)?;
            let reason = ParkReason::from_code(row.reason);
            Verdict::Parked(reason.ok_or("a parked row has no reason")?)
        } else {
            Verdict::Duplicate
        };
        if !allowed.has(verdict) {
            return Err(format!("the verdict is {verdict:?}, and must be {allowed}"));
        }
        match verdict {
            Verdict::Posted => {
                counted.posted += 1;
                self.post(partition, sent);
            }
            Verdict::Duplicate => counted.duplicate += 1,
            Verdict::Rejected(reason) if reason.binds_id() => counted.rejected += 1,
            Verdict::Rejected(_) => counted.refused += 1,
            Verdict::Parked(_) => {
                counted.parked += 1;
                let sent = Rc::clone(sent);
                let open = &mut self.partitions[place(partition)].open;
                open.insert(seq, Waiting { offset, sent });
            }
        }
        Ok(())
    }

    /// What an operator has done with parked records.
    fn resolve(
        &mut self,
        unseen: &mut Unseen<'_>,
        (counted, chain): (&mut Numbers, &mut Chain),
        (recorded_at, locked_after): (i64, u64),
    ) -> Result<(), String> {
        while let Some((row, rest)) = unseen.resolutions.split_first()
            && row.partition == counted.partition
        {
            unseen.resolutions = rest;
            if row.seq != counted.next_seq {
                return Err(format!("the resolution {row:?} has the wrong seq"));
            }
            row.add_to(chain, recorded_at);
            counted.next_seq += 1;
            counted.parked -= 1;
            self.resolved += 1;
            let open = &mut self.partitions[place(row.partition)].open;
            let waiting = open.remove(&row.parked_seq);
            let Waiting { offset, sent } =
                waiting.ok_or_else(|| format!("{row:?} resolves what is not open"))?;
            if row.is_discarded {
                counted.discarded += 1;
                continue;
            }
            let mut before = open.range(..row.parked_seq);
            if sent.key.is_some() && before.any(|(_, before)| before.sent.key == sent.key) {
                return Err(format!("{row:?} overtakes an earlier record of its key"));
            }
            let allowed = self.judge_free(&sent, locked_after);
            let parked = counted.parked;
            self.record(
                (offset, &sent),
                allowed,
                unseen,
                (counted, chain),
                recorded_at,
            )
            .map_err(|why| format!("replay of offset {offset}: {why}"))?;
            if counted.parked != parked {
                return Err(format!("{row:?} parks the record again"));
            }
        }
        Ok(())
    }

    /// Which verdicts the record may have now.
    fn judge(&self, partition: i32, sent: &Sent, locked_after: u64) -> Allowed {
        let open = &self.partitions[place(partition)].open;
        if sent.key.is_some() && open.values().any(|waiting| waiting.sent.key == sent.key) {
            return Allowed::one(Verdict::Parked(ParkReason::Behind));
        }
        self.judge_free(sent, locked_after)
    }

    /// The same where nothing of its key waits before it.
    fn judge_free(&self, sent: &Sent, locked_after: u64) -> Allowed {
        let transfer = match &sent.content {
            Sense::Parked(reason) => return Allowed::one(Verdict::Parked(*reason)),
            Sense::Refused(reason) => return Allowed::one(Verdict::Rejected(*reason)),
            Sense::Transfer(transfer) => transfer,
        };
        if let Some(digest) = self.ids.get(&transfer.id) {
            return Allowed::one(if *digest == transfer.digest {
                Verdict::Duplicate
            } else {
                Verdict::Rejected(Reason::IdConflict)
            });
        }
        let purse = (Rc::clone(&transfer.debit), transfer.currency.code());
        let funds = self.purses.get(&purse);
        let at_least = funds.map_or(0, |purse| purse.at_least(locked_after, self.commits));
        let at_most = funds.map_or(0, Purse::total);
        self.policies.judge(transfer, at_least, at_most)
    }

    fn bind(&mut self, row: &LedgerRow, sent: &Sent) -> Result<(), String> {
        let Sense::Transfer(transfer) = &sent.content else {
            return Err("a row of the ledger is of a record that is no transaction".into());
        };
        let Move {
            id,
            digest,
            debit,
            credit,
            amount,
            currency,
        } = &**transfer;
        let written = (&row.debit, &row.credit, row.amount, row.currency);
        if row.id != *id
            || row.digest != *digest
            || written != (debit, credit, *amount, currency.code())
        {
            return Err("a row of the ledger is not what was sent".into());
        }
        if self.ids.insert(*id, *digest).is_some() {
            return Err("an id has two verdicts".into());
        }
        Ok(())
    }

    fn post(&mut self, partition: i32, sent: &Sent) {
        let Sense::Transfer(transfer) = &sent.content else {
            return;
        };
        let amount = i128::from(transfer.amount);
        let currency = transfer.currency.code();
        for (account, debits, credits) in
            [(&transfer.debit, amount, 0), (&transfer.credit, 0, amount)]
        {
            let purse = self
                .purses
                .entry((Rc::clone(account), currency))
                .or_default();
            purse.change(self.commits, credits - debits);
            let key = (Rc::clone(account), currency, partition);
            let slice = self.slices.entry(key).or_default();
            slice.debits += debits;
            slice.credits += credits;
            slice.transactions += 1;
        }
    }

    /// The slices that were written must be the sums of what was posted.
    fn add_slices(&mut self, rows: &Rows) -> Result<(), String> {
        for delta in &rows.balances {
            let key = (Rc::clone(&delta.account), delta.currency, delta.partition);
            self.stored.entry(key).or_default().add(&delta.slice);
        }
        for row in rows.ledger.iter().filter(|row| row.verdict == 0) {
            for account in [&row.debit, &row.credit] {
                let key = (Rc::clone(account), row.currency, row.partition);
                self.compare_slice(&key)?;
            }
        }
        Ok(())
    }

    fn compare_slice(&self, key: &SliceKey) -> Result<(), String> {
        let of = |slices: &HashMap<SliceKey, Slice, FixedState>| {
            let slice = slices.get(key).copied().unwrap_or_default();
            (slice.debits, slice.credits, slice.transactions)
        };
        let (stored, posted) = (of(&self.stored), of(&self.slices));
        if stored == posted {
            return Ok(());
        }
        Err(format!(
            "the slice {key:?} is {stored:?}, what was posted gives {posted:?}"
        ))
    }

    /// An operator has begun a new incarnation.
    pub(crate) fn accepted(&mut self, acceptance: &Acceptance<'_>) {
        let seen = acceptance.seen;
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
        let chain_head = Chain::after(&seen.chain_head).close(&numbers);
        let advance = Advance {
            numbers,
            chain_head,
            anchor: None,
        };
        let partition = &mut self.partitions[place(seen.partition)];
        partition.incarnation = numbers.incarnation;
        partition.anchor = None;
        partition.advance(&advance);
        self.history.push(Rc::new(Rows {
            advances: vec![advance],
            ..Rows::default()
        }));
    }

    /// An operator has set a policy.
    pub(crate) fn set_policy(&mut self, change: &PolicyChange) {
        self.policies.set(change);
    }

    /// The state that the database may go back to.
    pub(crate) fn keep(&mut self) {
        self.kept = None;
        self.kept = Some(Box::new(self.clone()));
    }

    /// The database has gone back to it.
    pub(crate) fn go_back(&mut self) -> bool {
        let Some(kept) = self.kept.take() else {
            return false;
        };
        let counts = (self.applied, self.resolved);
        *self = (*kept).clone();
        (self.applied, self.resolved) = counts;
        self.kept = Some(kept);
        true
    }

    /// The database takes from now on what it refused.
    pub(crate) fn mend(&mut self) {
        self.policies.is_mended = true;
    }

    /// Whether the database has a position of any partition.
    pub(crate) fn has_begun(&self) -> bool {
        self.partitions.iter().any(|partition| partition.has_begun)
    }

    /// The partitions of which parked records wait for an operator.
    pub(crate) fn waiting(&self) -> Vec<i32> {
        let partitions = (0..).zip(&self.partitions);
        let waiting = partitions.filter(|(_, partition)| !partition.open.is_empty());
        waiting.map(|(number, _)| number).collect()
    }

    /// What is left to apply: (partition, position, end of the log).
    pub(crate) fn left(&self, broker: &Broker) -> Vec<(i32, i64, i64)> {
        let partitions = (0..).zip(&self.partitions).zip(&broker.partitions);
        partitions
            .filter(|((_, partition), log)| !partition.has_begun || partition.position != log.end)
            .map(|((number, partition), log)| (number, partition.position, log.end))
            .collect()
    }

    /// Everything that is stored must be what was seen committed.
    pub(crate) fn compare(&self, tables: &Tables) -> Result<(), String> {
        for (number, partition) in (0..).zip(&self.partitions) {
            if let Some(position) = tables.positions.get(&number) {
                partition.compare(position)?;
            }
        }
        let mut counted = [0; 5];
        for rows in &self.history {
            let same =
                rows.ledger
                    .iter()
                    .all(|row| tables.ledger.get(&(row.partition, row.seq)) == Some(row))
                    && rows.refused.iter().all(|row| {
                        tables.refused.get(&(row.raw.partition, row.raw.seq)) == Some(row)
                    })
                    && rows
                        .parked
                        .iter()
                        .all(|row| tables.parked.get(&(row.partition, row.seq)) == Some(row))
                    && rows.resolutions.iter().all(|row| {
                        tables.resolutions.get(&(row.partition, row.parked_seq)) == Some(row)
                    })
                    && rows.advances.iter().all(|advance| {
                        let key = (advance.numbers.partition, advance.numbers.batch);
                        tables.batches.get(&key) == Some(&(advance.numbers, advance.chain_head))
                    });
            if !same {
                return Err(format!("these rows are not in the tables: {rows:?}"));
            }
            let lengths = [
                rows.ledger.len(),
                rows.refused.len(),
                rows.parked.len(),
                rows.resolutions.len(),
                rows.advances.len(),
            ];
            counted
                .iter_mut()
                .zip(lengths)
                .for_each(|(sum, length)| *sum += length);
        }
        let found = [
            tables.ledger.len(),
            tables.refused.len(),
            tables.parked.len(),
            tables.resolutions.len(),
            tables.batches.len(),
        ];
        if found != counted {
            return Err(format!(
                "the tables have {found:?} rows, more than were committed"
            ));
        }
        for (key, slice) in &tables.balances {
            self.compare_slice(key)?;
            if self.stored.get(key) != Some(slice) {
                return Err(format!("the slice {key:?} is stored as {slice:?}"));
            }
        }
        self.slices
            .keys()
            .try_for_each(|key| self.compare_slice(key))
    }
}

impl Partition {
    /// A batch must begin where the last one ended.
    fn continues(&self, numbers: &Numbers) -> Result<(), String> {
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
    fn may_read_on(
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

    fn advance(&mut self, advance: &Advance) {
        let numbers = &advance.numbers;
        self.position = numbers.next_offset;
        self.next_seq = numbers.next_seq;
        self.next_batch = numbers.batch + 1;
        self.parked_open += i64::from(numbers.parked);
        self.head = advance.chain_head;
    }

    fn compare(&self, found: &Position) -> Result<(), String> {
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

impl RawRow {
    /// Byte for byte.
    fn is_of(&self, sent: &Sent) -> Result<(), String> {
        let mut headers = Vec::new();
        for (name, value) in &sent.headers {
            headers.extend(length(Some(name.len())));
            headers.extend(name.as_bytes());
            headers.extend(length(value.map(<[u8]>::len)));
            headers.extend(value.unwrap_or_default());
        }
        let same = self.key == sent.key
            && self.value == sent.value
            && self.headers == headers
            && self.record_timestamp == sent.timestamp;
        if same {
            Ok(())
        } else {
            Err("the row is not what was sent, byte for byte".into())
        }
    }
}

fn length(length: Option<usize>) -> [u8; 4] {
    let length = length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX));
    length.to_be_bytes()
}

fn anchor(offset: i64, sent: &Sent) -> Anchor {
    Anchor {
        offset,
        timestamp: sent.timestamp,
        digest: chain::anchor(sent.key.as_deref(), sent.value.as_deref()),
    }
}

fn is_same(one: Option<&Rc<Sent>>, other: Option<&Rc<Sent>>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if Rc::ptr_eq(one, other))
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn describe(numbers: &Numbers, why: &str) -> String {
    let Numbers {
        partition,
        batch,
        from_offset,
        next_offset,
        ..
    } = numbers;
    format!("partition {partition}, batch {batch} of [{from_offset}, {next_offset}): {why}")
}
