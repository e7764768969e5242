//! Plan: from verdicts to the rows that the batch writes. Pure.

use std::borrow::Cow;

use millrace_rules::{Candidate, Content, Decisions, ParkReason, Reason, Verdict};

use crate::chain::{self, Chain, Numbers};
use crate::pipeline::decode::Decoded;
use crate::pipeline::outcome::{
    LedgerRow, Outcome, ParkedRow, Previous, RawRow, Read, RefusedRow, Resolution, ResolutionRow,
};
use crate::pipeline::slices::move_balances;
use crate::record::{Batch, LogRange, Record};
use crate::store::{Advance, Anchor, Position};

/// What is done with parked records, by whom and why.
#[derive(Debug, Clone, Copy)]
pub struct Resolving<'d> {
    /// Their `seq`, in the order of the records.
    pub parked_seqs: &'d [i64],
    /// What is done.
    pub resolution: Resolution,
    /// Why.
    pub reason: &'d str,
    /// Who.
    pub operator: &'d str,
}

/// What was decided, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a, 'd> {
    /// The records.
    pub batch: &'d Batch<'a>,
    /// What they say.
    pub decoded: &'d [Decoded<'a>],
    /// As the decision saw them.
    pub candidates: &'d [Candidate<'d>],
    /// What became of them.
    pub decisions: &'d Decisions<'d>,
}

/// The rows of a decided batch. `positions` are those found under the locks, in the batch's order.
pub fn plan<'d>(decided: Decided<'d, 'd>, positions: &[Position], recorded_at: i64) -> Outcome<'d> {
    let mut outcome = Outcome::at(recorded_at);
    outcome.ledger.reserve(decided.batch.len());
    let mut first = 0;
    for (slice, position) in decided.batch.slices().iter().zip(positions) {
        let mut part = Part::new(&mut outcome, slice.log, position);
        let records = decided.batch.records(slice);
        for (place, record) in (first..).zip(records) {
            part.add(decided, place, record);
        }
        part.close(anchor(decided.batch, records.last()));
        first += records.len();
    }
    outcome.balances = move_balances(&mut outcome.ledger);
    outcome
}

/// The rows of parked records of one partition that are decided again: each one's resolution and then what
/// became of it. Those that stay parked change nothing. The position stays where it is.
pub fn plan_replay<'d>(
    decided: Decided<'d, 'd>,
    position: &Position,
    resolving: Resolving<'d>,
    recorded_at: i64,
) -> Outcome<'d> {
    let mut outcome = Outcome::at(recorded_at);
    let mut part = Part::new(&mut outcome, standing(position), position);
    let records = decided.batch.slices().iter();
    let records = records.flat_map(|slice| decided.batch.records(slice));
    for ((place, record), parked_seq) in records.enumerate().zip(resolving.parked_seqs) {
        if !matches!(decided.decisions.verdicts[place], Verdict::Parked(_)) {
            part.resolve(*parked_seq, resolving);
            part.add(decided, place, record);
        }
    }
    part.close(None);
    outcome.balances = move_balances(&mut outcome.ledger);
    outcome
}

/// The rows of parked records of one partition that are given up.
pub fn plan_discard<'d>(
    position: &Position,
    resolving: Resolving<'d>,
    recorded_at: i64,
) -> Outcome<'d> {
    let mut outcome = Outcome::at(recorded_at);
    let mut part = Part::new(&mut outcome, standing(position), position);
    for parked_seq in resolving.parked_seqs {
        part.resolve(*parked_seq, resolving);
        part.numbers.discarded += 1;
    }
    part.close(None);
    outcome
}

/// A range without an offset, at the position.
fn standing(position: &Position) -> LogRange {
    LogRange {
        partition: position.partition,
        incarnation: position.incarnation,
        from: position.position,
        next: position.position,
    }
}

/// One partition's part of the outcome while its records are added.
struct Part<'o, 'd> {
    outcome: &'o mut Outcome<'d>,
    chain: Chain,
    numbers: Numbers,
}

impl<'o, 'd> Part<'o, 'd> {
    fn new(outcome: &'o mut Outcome<'d>, log: LogRange, position: &Position) -> Self {
        let numbers = Numbers {
            partition: position.partition,
            batch: position.next_batch,
            incarnation: position.incarnation,
            from_offset: log.from,
            next_offset: log.next,
            first_seq: position.next_seq,
            next_seq: position.next_seq,
            recorded_at: outcome.recorded_at,
            ..Numbers::default()
        };
        Self {
            outcome,
            chain: Chain::after(&position.chain_head),
            numbers,
        }
    }

    fn add(&mut self, decided: Decided<'d, 'd>, place: usize, record: &'d Record) {
        let content = &decided.decoded[place];
        match decided.decisions.verdicts[place] {
            Verdict::Duplicate => self.numbers.duplicate += 1,
            Verdict::Posted => {
                self.numbers.posted += 1;
                self.ledger(decided, place, record, 0);
            }
            Verdict::Rejected(reason) if reason.binds_id() => {
                self.numbers.rejected += 1;
                self.ledger(decided, place, record, reason.code());
            }
            Verdict::Rejected(reason) => {
                self.numbers.refused += 1;
                self.refused(decided.batch, record, content, reason);
            }
            Verdict::Parked(reason) => {
                self.numbers.parked += 1;
                self.parked(decided.batch, record, content, reason);
            }
        }
    }

    fn ledger(&mut self, decided: Decided<'d, 'd>, place: usize, record: &Record, verdict: i16) {
        let (Decoded::Transaction(transaction), Content::Transfer(transfer)) =
            (&decided.decoded[place], &decided.candidates[place].content)
        else {
            unreachable!("only a transaction is posted or rejected by a rule")
        };
        let row = LedgerRow {
            partition: record.partition,
            seq: self.take_seq(),
            log_offset: record.offset,
            verdict,
            digest: transfer.digest,
            transaction,
            debit_previous: Previous::None,
            credit_previous: Previous::None,
        };
        self.chain.ledger(&chain::LedgerRow {
            seq: row.seq,
            log_offset: row.log_offset,
            recorded_at: self.outcome.recorded_at,
            verdict,
            digest: &row.digest,
        });
        self.outcome.ledger.push(row);
    }

    fn refused(
        &mut self,
        batch: &Batch<'d>,
        record: &Record,
        decoded: &'d Decoded<'d>,
        reason: Reason,
    ) {
        let (detail, read) = match decoded {
            Decoded::Refused(refusal) => (refusal.detail.as_str(), Read::of(&refusal.wire)),
            Decoded::Transaction(transaction) => (
                "the id is known with other content",
                Read::of(&transaction.to_wire()),
            ),
            Decoded::Parked { .. } => unreachable!("what cannot be read is parked"),
        };
        let raw = self.raw(batch, record, reason.code(), detail.into());
        self.chain
            .refused(&raw.for_chain(self.outcome.recorded_at), &read.for_chain());
        self.outcome.refused.push(RefusedRow { raw, read });
    }

    fn parked(
        &mut self,
        batch: &Batch<'d>,
        record: &Record,
        decoded: &'d Decoded<'d>,
        reason: ParkReason,
    ) {
        let id = match decoded {
            Decoded::Transaction(transaction) => Some(transaction.id),
            Decoded::Refused(refusal) => uuid::Uuid::try_parse(&refusal.wire.id).ok(),
            Decoded::Parked { .. } => None,
        };
        let detail = match decoded {
            Decoded::Parked {
                reason: own,
                detail,
            } if *own == reason => detail.as_str(),
            _ => "an earlier record of this key is parked",
        };
        let raw = self.raw(batch, record, reason.code(), detail.into());
        self.chain.parked(
            &raw.for_chain(self.outcome.recorded_at),
            id.map(uuid::Uuid::into_bytes),
        );
        self.outcome.parked.push(ParkedRow { raw, id });
    }

    fn raw(
        &mut self,
        batch: &Batch<'d>,
        record: &Record,
        reason: i16,
        detail: Cow<'d, str>,
    ) -> RawRow<'d> {
        RawRow {
            partition: record.partition,
            seq: self.take_seq(),
            log_offset: record.offset,
            reason,
            detail,
            record_timestamp: record.timestamp,
            key: batch.key(record),
            value: batch.value(record),
            headers: batch.headers(record),
        }
    }

    fn take_seq(&mut self) -> i64 {
        let seq = self.numbers.next_seq;
        self.numbers.next_seq += 1;
        seq
    }

    /// A parked record is not open any more.
    fn resolve(&mut self, parked_seq: i64, resolving: Resolving<'d>) {
        let row = ResolutionRow {
            partition: self.numbers.partition,
            seq: self.take_seq(),
            parked_seq,
            resolution: resolving.resolution,
            reason: resolving.reason,
            operator: resolving.operator,
        };
        self.numbers.parked -= 1;
        self.chain.resolution(&chain::ResolutionRow {
            seq: row.seq,
            parked_seq,
            recorded_at: self.outcome.recorded_at,
            is_discarded: row.resolution == Resolution::Discarded,
            reason: row.reason,
            operator: row.operator,
        });
        self.outcome.resolutions.push(row);
    }

    fn close(self, anchor: Option<Anchor>) {
        let mut numbers = self.numbers;
        let records = [
            numbers.posted,
            numbers.duplicate,
            numbers.rejected,
            numbers.refused,
            numbers.parked,
            numbers.discarded,
        ];
        let records: i64 = records.into_iter().map(i64::from).sum();
        numbers.skipped = numbers.next_offset - numbers.from_offset - records;
        let chain_head = self.chain.close(&numbers);
        self.outcome.advances.push(Advance {
            numbers,
            chain_head,
            anchor,
        });
    }
}

/// How the log will be recognised after the batch.
fn anchor(batch: &Batch<'_>, last: Option<&Record>) -> Option<Anchor> {
    last.map(|record| Anchor {
        offset: record.offset,
        timestamp: record.timestamp,
        digest: chain::anchor(batch.key(record), batch.value(record)),
    })
}
