//! What a batch wrote, kept for as long as the simulation needs it.

use std::rc::Rc;

use millrace_ledger::chain;
use millrace_ledger::pipeline::outcome::{self, Outcome};
use millrace_ledger::store::Advance;

/// An [`Outcome`] that borrows nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    pub recorded_at: i64,
    pub ledger: Vec<LedgerRow>,
    pub refused: Vec<RefusedRow>,
    pub parked: Vec<ParkedRow>,
    pub resolutions: Vec<ResolutionRow>,
    pub balances: Vec<Delta>,
    pub advances: Vec<Advance>,
}

/// A row of `ledger`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub verdict: i16,
    pub id: [u8; 16],
    pub digest: [u8; 32],
    pub debit: Rc<str>,
    pub credit: Rc<str>,
    pub currency: &'static str,
    pub amount: i64,
    pub occurred_at: i64,
}

/// A row of `refused` or `parked` without what only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRow {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub reason: i16,
    pub detail: String,
    pub record_timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<u8>,
    pub id: Option<[u8; 16]>,
}

/// A row of `refused`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedRow {
    pub raw: RawRow,
    pub debit_account: String,
    pub credit_account: String,
    pub amount: Option<i64>,
    pub currency: String,
    pub occurred_at: Option<i64>,
}

/// A row of `parked`.
pub(crate) type ParkedRow = RawRow;

/// A row of `parked_resolutions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolutionRow {
    pub partition: i32,
    pub seq: i64,
    pub parked_seq: i64,
    pub is_discarded: bool,
    pub reason: String,
    pub operator: String,
}

/// How a slice changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delta {
    pub account: Rc<str>,
    pub currency: &'static str,
    pub partition: i32,
    pub slice: Slice,
}

/// An account's share of one partition, or a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slice {
    pub debits: i128,
    pub credits: i128,
    pub transactions: i64,
    pub last_occurred_at: i64,
}

impl Slice {
    pub fn add(&mut self, other: &Self) {
        self.debits += other.debits;
        self.credits += other.credits;
        self.transactions += other.transactions;
        self.last_occurred_at = self.last_occurred_at.max(other.last_occurred_at);
    }
}

impl Rows {
    pub fn of(outcome: &Outcome<'_>) -> Self {
        Self {
            recorded_at: outcome.recorded_at,
            ledger: outcome.ledger.iter().map(LedgerRow::of).collect(),
            refused: outcome.refused.iter().map(RefusedRow::of).collect(),
            parked: outcome
                .parked
                .iter()
                .map(|row| RawRow::of(&row.raw, row.id))
                .collect(),
            resolutions: outcome.resolutions.iter().map(ResolutionRow::of).collect(),
            balances: outcome.balances.iter().map(Delta::of).collect(),
            advances: outcome.advances.clone(),
        }
    }
}

impl LedgerRow {
    fn of(row: &outcome::LedgerRow<'_>) -> Self {
        let transaction = row.transaction;
        Self {
            partition: row.partition,
            seq: row.seq,
            log_offset: row.log_offset,
            verdict: row.verdict,
            id: transaction.id.into_bytes(),
            digest: row.digest,
            debit: transaction.debit_account.as_str().into(),
            credit: transaction.credit_account.as_str().into(),
            currency: transaction.currency.code(),
            amount: transaction.amount.minor_units(),
            occurred_at: transaction.occurred_at,
        }
    }

    pub fn add_to(&self, chain: &mut chain::Chain, recorded_at: i64) {
        chain.ledger(&chain::LedgerRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at,
            verdict: self.verdict,
            digest: &self.digest,
        });
    }
}

impl RawRow {
    fn of(row: &outcome::RawRow<'_>, id: Option<uuid::Uuid>) -> Self {
        Self {
            partition: row.partition,
            seq: row.seq,
            log_offset: row.log_offset,
            reason: row.reason,
            detail: row.detail.clone().into_owned(),
            record_timestamp: row.record_timestamp,
            key: row.key.map(<[u8]>::to_vec),
            value: row.value.map(<[u8]>::to_vec),
            headers: row.headers.to_vec(),
            id: id.map(uuid::Uuid::into_bytes),
        }
    }

    fn for_chain(&self, recorded_at: i64) -> chain::RawRow<'_> {
        chain::RawRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at,
            reason: self.reason,
            detail: &self.detail,
            record_timestamp: self.record_timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    /// As a row of `parked`.
    pub fn add_to(&self, chain: &mut chain::Chain, recorded_at: i64) {
        chain.parked(&self.for_chain(recorded_at), self.id);
    }
}

impl RefusedRow {
    fn of(row: &outcome::RefusedRow<'_>) -> Self {
        Self {
            raw: RawRow::of(&row.raw, row.read.id),
            debit_account: row.read.debit_account.clone(),
            credit_account: row.read.credit_account.clone(),
            amount: row.read.amount,
            currency: row.read.currency.clone(),
            occurred_at: row.read.occurred_at,
        }
    }

    pub fn add_to(&self, chain: &mut chain::Chain, recorded_at: i64) {
        let shown = chain::Readable {
            id: self.raw.id,
            debit_account: Some(&self.debit_account),
            credit_account: Some(&self.credit_account),
            amount: self.amount,
            currency: Some(&self.currency),
            occurred_at: self.occurred_at,
        };
        chain.refused(&self.raw.for_chain(recorded_at), &shown);
    }
}

impl ResolutionRow {
    fn of(row: &outcome::ResolutionRow<'_>) -> Self {
        Self {
            partition: row.partition,
            seq: row.seq,
            parked_seq: row.parked_seq,
            is_discarded: row.resolution == outcome::Resolution::Discarded,
            reason: row.reason.to_owned(),
            operator: row.operator.to_owned(),
        }
    }

    pub fn add_to(&self, chain: &mut chain::Chain, recorded_at: i64) {
        chain.resolution(&chain::ResolutionRow {
            seq: self.seq,
            parked_seq: self.parked_seq,
            recorded_at,
            is_discarded: self.is_discarded,
            reason: &self.reason,
            operator: &self.operator,
        });
    }
}

impl Delta {
    fn of(delta: &outcome::Delta<'_>) -> Self {
        Self {
            account: delta.account.into(),
            currency: delta.currency,
            partition: delta.partition,
            slice: Slice {
                debits: delta.debits.into(),
                credits: delta.credits.into(),
                transactions: delta.transactions,
                last_occurred_at: delta.last_occurred_at,
            },
        }
    }
}
