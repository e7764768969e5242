//! The oracle: what must have become of every record, worked out again from the log and in the order of the
//! commits, by other code than the ledger's.
//!
//! Every commit is looked at when it happens. A batch must begin where the last one of its partition ended, and
//! give each record of its range one verdict: the one that [`judge`](super::judge) works out.

mod partition;
mod stored;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use foldhash::fast::FixedState;
use millrace_ledger::chain::{self, Chain, GENESIS, Numbers};
use millrace_ledger::store::{Advance, Anchor, Attached};
use millrace_rules::{ParkReason, Reason, Verdict};

use self::partition::{Partition, Waiting};
use crate::broker::{Broker, place};
use crate::judge::{Allowed, Policies, Purse};
use crate::rows::{LedgerRow, RawRow, RefusedRow, ResolutionRow, Rows, Slice};
use crate::sessions::Known;
use crate::workload::{Move, Sense, Sent};

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
            let known = Allowed::one(if *digest == transfer.digest {
                Verdict::Duplicate
            } else {
                Verdict::Rejected(Reason::IdConflict)
            });
            // It may have been refused before another partition bound its id.
            return known.or_refused(transfer);
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
