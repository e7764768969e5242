//! The hash chain: one SHA-256 per partition over every stored row and every batch's counts.
//!
//! The head of a batch is `SHA-256(version, head before, rows in order of seq, the batch's numbers)`.
//! It is computed when the batch is planned and can be computed again from the tables alone. Numbers
//! are big-endian; texts and bytes carry their length; an absent value is the length -1. A ledger
//! row enters with its digest, which stands for its content.

use sha2::{Digest as _, Sha256};

/// The version of the canonical bytes.
const VERSION: u8 = 1;

/// A chain head.
pub type Head = [u8; 32];

/// The head before the first batch.
pub const GENESIS: Head = [0; 32];

/// The numbers of one batch of one partition. See the table `batches` for their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct Numbers {
    pub partition: i32,
    pub batch: i64,
    pub incarnation: i32,
    pub from_offset: i64,
    pub next_offset: i64,
    pub first_seq: i64,
    pub next_seq: i64,
    pub posted: i32,
    pub duplicate: i32,
    pub rejected: i32,
    pub refused: i32,
    pub parked: i32,
    pub discarded: i32,
    pub skipped: i64,
    pub recorded_at: i64,
}

/// A row of the ledger as the chain sees it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct LedgerRow<'a> {
    pub seq: i64,
    pub log_offset: i64,
    pub recorded_at: i64,
    pub verdict: i16,
    pub digest: &'a [u8],
}

/// A row of `refused` or `parked` as the chain sees it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the columns are described with the tables")]
pub struct RawRow<'a> {
    pub seq: i64,
    pub log_offset: i64,
    pub recorded_at: i64,
    pub reason: i16,
    pub detail: &'a str,
    pub record_timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [u8],
}

/// What a row of `refused` shows of its record, as far as that could be read.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct Readable<'a> {
    pub id: Option<[u8; 16]>,
    pub debit_account: Option<&'a str>,
    pub credit_account: Option<&'a str>,
    pub amount: Option<i64>,
    pub currency: Option<&'a str>,
    pub occurred_at: Option<i64>,
}

/// A row of `parked_resolutions` as the chain sees it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct ResolutionRow<'a> {
    pub seq: i64,
    pub parked_seq: i64,
    pub recorded_at: i64,
    pub is_discarded: bool,
    pub reason: &'a str,
    pub operator: &'a str,
}

/// A row of `incarnations` as the chain sees it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct AcceptanceRow<'a> {
    pub previous_position: i64,
    pub accepted_at: i64,
    pub reason: &'a str,
    pub operator: &'a str,
}

/// The chain of one batch while its rows are added in order of `seq`.
#[derive(Debug, Clone)]
pub struct Chain(Sha256);

impl Chain {
    /// Continues from the head of the batch before.
    pub fn after(head: &Head) -> Self {
        let mut hash = Sha256::new();
        hash.update([VERSION]);
        hash.update(head);
        Self(hash)
    }

    /// Adds a row of the ledger.
    pub fn ledger(&mut self, row: &LedgerRow<'_>) {
        self.tag(b'L', row.seq, row.log_offset, row.recorded_at, row.verdict);
        self.0.update(row.digest);
    }

    /// Adds a row of `refused`.
    pub fn refused(&mut self, row: &RawRow<'_>, shown: &Readable<'_>) {
        self.raw(b'R', row);
        self.bytes(shown.id.as_ref().map(<[u8; 16]>::as_slice));
        self.bytes(shown.debit_account.map(str::as_bytes));
        self.bytes(shown.credit_account.map(str::as_bytes));
        self.number(shown.amount);
        self.bytes(shown.currency.map(str::as_bytes));
        self.number(shown.occurred_at);
    }

    /// Adds a row of `parked`; `id` where the record's could be read.
    pub fn parked(&mut self, row: &RawRow<'_>, id: Option<[u8; 16]>) {
        self.raw(b'P', row);
        self.bytes(id.as_ref().map(<[u8; 16]>::as_slice));
    }

    /// Adds a row of `parked_resolutions`.
    pub fn resolution(&mut self, row: &ResolutionRow<'_>) {
        let code = if row.is_discarded { 2 } else { 1 };
        self.tag(b'S', row.seq, row.parked_seq, row.recorded_at, code);
        self.bytes(Some(row.reason.as_bytes()));
        self.bytes(Some(row.operator.as_bytes()));
    }

    /// Adds the row of `incarnations` that goes with the batch, which has no other.
    pub fn acceptance(&mut self, row: &AcceptanceRow<'_>) {
        self.tag(b'A', 0, row.previous_position, row.accepted_at, 0);
        self.bytes(Some(row.reason.as_bytes()));
        self.bytes(Some(row.operator.as_bytes()));
    }

    /// Closes the batch: the new head.
    pub fn close(mut self, numbers: &Numbers) -> Head {
        self.0.update(b"B");
        for number in [
            i64::from(numbers.partition),
            numbers.batch,
            i64::from(numbers.incarnation),
            numbers.from_offset,
            numbers.next_offset,
            numbers.first_seq,
            numbers.next_seq,
            i64::from(numbers.posted),
            i64::from(numbers.duplicate),
            i64::from(numbers.rejected),
            i64::from(numbers.refused),
            i64::from(numbers.parked),
            i64::from(numbers.discarded),
            numbers.skipped,
            numbers.recorded_at,
        ] {
            self.0.update(number.to_be_bytes());
        }
        self.0.finalize().into()
    }

    fn raw(&mut self, table: u8, row: &RawRow<'_>) {
        self.tag(table, row.seq, row.log_offset, row.recorded_at, row.reason);
        self.number(row.record_timestamp);
        self.bytes(Some(row.detail.as_bytes()));
        self.bytes(row.key);
        self.bytes(row.value);
        self.bytes(Some(row.headers));
    }

    fn tag(&mut self, table: u8, seq: i64, log_offset: i64, recorded_at: i64, code: i16) {
        let mut bytes = [0; 27];
        bytes[0] = table;
        bytes[1..9].copy_from_slice(&seq.to_be_bytes());
        bytes[9..17].copy_from_slice(&log_offset.to_be_bytes());
        bytes[17..25].copy_from_slice(&recorded_at.to_be_bytes());
        bytes[25..27].copy_from_slice(&code.to_be_bytes());
        self.0.update(bytes);
    }

    fn number(&mut self, number: Option<i64>) {
        let bytes = number.map(i64::to_be_bytes);
        self.bytes(bytes.as_ref().map(<[u8; 8]>::as_slice));
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.0.update(length.to_be_bytes());
        self.0.update(bytes.unwrap_or_default());
    }
}

/// SHA-256 of a record's raw key and value: the anchor by which a log is recognised.
pub fn anchor(key: Option<&[u8]>, value: Option<&[u8]>) -> [u8; 32] {
    let mut chain = Chain(Sha256::new());
    chain.bytes(key);
    chain.bytes(value);
    chain.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let ledger = LedgerRow {
            seq: 1,
            log_offset: 2,
            recorded_at: 3,
            verdict: 0,
            digest: &[7; 32],
        };
        let head = |before: &Head, row: LedgerRow<'_>, numbers: Numbers| {
            let mut chain = Chain::after(before);
            chain.ledger(&row);
            chain.close(&numbers)
        };
        let numbers = Numbers::default();
        let base = head(&GENESIS, ledger, numbers);
        let others = [
            head(&base, ledger, numbers),
            head(&GENESIS, LedgerRow { seq: 2, ..ledger }, numbers),
            head(
                &GENESIS,
                LedgerRow {
                    log_offset: 3,
                    ..ledger
                },
                numbers,
            ),
            head(
                &GENESIS,
                LedgerRow {
                    recorded_at: 4,
                    ..ledger
                },
                numbers,
            ),
            head(
                &GENESIS,
                LedgerRow {
                    verdict: 1,
                    ..ledger
                },
                numbers,
            ),
            head(
                &GENESIS,
                LedgerRow {
                    digest: &[8; 32],
                    ..ledger
                },
                numbers,
            ),
            head(
                &GENESIS,
                ledger,
                Numbers {
                    duplicate: 1,
                    ..numbers
                },
            ),
            head(
                &GENESIS,
                ledger,
                Numbers {
                    skipped: 1,
                    ..numbers
                },
            ),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(head(&GENESIS, ledger, numbers), base);
    }

    #[test]
    fn what_a_refused_row_shows_counts() {
        let row = RawRow {
            seq: 1,
            log_offset: 2,
            recorded_at: 3,
            reason: 4,
            detail: "",
            record_timestamp: None,
            key: None,
            value: None,
            headers: b"",
        };
        let head = |row: RawRow<'_>, shown: Readable<'_>| {
            let mut chain = Chain::after(&GENESIS);
            chain.refused(&row, &shown);
            chain.close(&Numbers::default())
        };
        let none = Readable::default();
        let mut heads = vec![
            head(row, none),
            head(
                RawRow {
                    record_timestamp: Some(-1),
                    ..row
                },
                none,
            ),
        ];
        for shown in [
            Readable {
                id: Some([0; 16]),
                ..none
            },
            Readable {
                debit_account: Some("a"),
                ..none
            },
            Readable {
                credit_account: Some("a"),
                ..none
            },
            Readable {
                amount: Some(-1),
                ..none
            },
            Readable {
                currency: Some("EUR"),
                ..none
            },
            Readable {
                occurred_at: Some(-1),
                ..none
            },
        ] {
            heads.push(head(row, shown));
        }
        let count = heads.len();
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), count);
    }

    #[test]
    fn absent_and_empty_differ() {
        assert_ne!(anchor(None, Some(b"v")), anchor(Some(b""), Some(b"v")));
        assert_ne!(
            anchor(Some(b"a"), Some(b"bc")),
            anchor(Some(b"ab"), Some(b"c"))
        );
    }
}
