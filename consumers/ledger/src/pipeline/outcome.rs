//! What one batch writes, as rows.

use std::borrow::Cow;

use millrace_schemas::transaction::{OCCURRED_AT_MAX, OCCURRED_AT_MIN};
use millrace_schemas::{Transaction, Wire};

use crate::chain;
use crate::store::Advance;

/// Everything that one batch changes.
#[derive(Debug, Default)]
pub struct Outcome<'a> {
    /// When it was decided, microseconds since 1970.
    pub recorded_at: i64,
    /// What binds an id, by (partition, seq).
    pub ledger: Vec<LedgerRow<'a>>,
    /// What is refused without binding an id.
    pub refused: Vec<RefusedRow<'a>>,
    /// What waits for an operator.
    pub parked: Vec<ParkedRow<'a>>,
    /// What became of records that waited.
    pub resolutions: Vec<ResolutionRow<'a>>,
    /// Changes of slices, by (account, currency, partition). A slice is there once, and again only for what
    /// does not fit into 64 bits.
    pub balances: Vec<Delta<'a>>,
    /// One per partition, ascending.
    pub advances: Vec<Advance>,
}

impl Outcome<'_> {
    /// Nothing yet, decided at `recorded_at`.
    pub(super) fn at(recorded_at: i64) -> Self {
        Self {
            recorded_at,
            ..Self::default()
        }
    }
}

/// A row of `ledger`.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct LedgerRow<'a> {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub verdict: i16,
    pub digest: [u8; 32],
    pub transaction: &'a Transaction<'a>,
    pub debit_previous: Previous,
    pub credit_previous: Previous,
}

/// Which posted transaction of the same slice comes before a row's: the thread along which an account's
/// transactions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous {
    /// Rejected: it is in no thread.
    None,
    /// The row of this `seq`, in the same batch.
    Row(i64),
    /// The one that was the slice's last before the batch, if there was one: the index of the slice's change
    /// in [`Outcome::balances`].
    Slice(usize),
}

/// A record as `refused` and `parked` keep it.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct RawRow<'a> {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub reason: i16,
    pub detail: Cow<'a, str>,
    pub record_timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [u8],
}

impl RawRow<'_> {
    pub(super) fn for_chain(&self, recorded_at: i64) -> chain::RawRow<'_> {
        chain::RawRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at,
            reason: self.reason,
            detail: &self.detail,
            record_timestamp: self.record_timestamp,
            key: self.key,
            value: self.value,
            headers: self.headers,
        }
    }
}

/// A row of `refused`.
#[derive(Debug)]
pub struct RefusedRow<'a> {
    /// The record.
    pub raw: RawRow<'a>,
    /// As far as it could be read.
    pub read: Read,
}

/// What could be read of a refused record, as far as the columns can hold it.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct Read {
    pub id: Option<uuid::Uuid>,
    pub debit_account: String,
    pub credit_account: String,
    pub amount: Option<i64>,
    pub currency: String,
    pub occurred_at: Option<i64>,
}

impl Read {
    pub(super) fn of(wire: &Wire<'_>) -> Self {
        // Longer values are in the raw bytes beside them.
        let shown = |text: &str| text.chars().filter(|c| *c != '\0').take(200).collect();
        let times = OCCURRED_AT_MIN..=OCCURRED_AT_MAX;
        Self {
            id: uuid::Uuid::try_parse(&wire.id).ok(),
            debit_account: shown(&wire.debit_account),
            credit_account: shown(&wire.credit_account),
            amount: wire.amount_read(),
            currency: shown(&wire.currency),
            occurred_at: Some(wire.occurred_at).filter(|at| times.contains(at)),
        }
    }

    pub(super) fn for_chain(&self) -> chain::Readable<'_> {
        chain::Readable {
            id: self.id.map(uuid::Uuid::into_bytes),
            debit_account: Some(&self.debit_account),
            credit_account: Some(&self.credit_account),
            amount: self.amount,
            currency: Some(&self.currency),
            occurred_at: self.occurred_at,
        }
    }
}

/// A row of `parked`.
#[derive(Debug)]
pub struct ParkedRow<'a> {
    /// The record.
    pub raw: RawRow<'a>,
    /// Its id, where that can be read.
    pub id: Option<uuid::Uuid>,
}

/// What an operator has done with a parked record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It went through the phases again.
    Replayed,
    /// It is given up.
    Discarded,
}

impl Resolution {
    /// As the column has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// A row of `parked_resolutions`.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct ResolutionRow<'a> {
    pub partition: i32,
    pub seq: i64,
    pub parked_seq: i64,
    pub resolution: Resolution,
    pub reason: &'a str,
    pub operator: &'a str,
}

/// How one slice of an account's balance changes. Minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    /// The account.
    pub account: &'a str,
    /// The currency's code.
    pub currency: &'static str,
    /// The slice.
    pub partition: i32,
    /// Added to its debits.
    pub debits: i64,
    /// Added to its credits.
    pub credits: i64,
    /// Added to its count.
    pub transactions: i64,
    /// The latest time among them, microseconds since 1970.
    pub last_occurred_at: i64,
    /// The `seq` of the last of them.
    pub last_seq: i64,
    /// A statement changes a slice once: which one does. 0, but for what does not fit into 64 bits.
    pub round: u8,
}

impl Delta<'_> {
    /// Whether both change the same slice.
    pub fn is_of_slice(&self, other: &Self) -> bool {
        // The cheapest first, and what differs most often.
        self.partition == other.partition
            && self.account == other.account
            && self.currency == other.currency
    }

    /// Adds a later change of the same slice; `false` and nothing where that does not fit.
    pub(super) fn add(&mut self, next: &Self) -> bool {
        let (Some(debits), Some(credits)) = (
            self.debits.checked_add(next.debits),
            self.credits.checked_add(next.credits),
        ) else {
            return false;
        };
        self.debits = debits;
        self.credits = credits;
        self.transactions += next.transactions;
        self.last_occurred_at = self.last_occurred_at.max(next.last_occurred_at);
        self.last_seq = next.last_seq;
        true
    }
}
