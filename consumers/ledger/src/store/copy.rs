//! Rows in Postgres' binary COPY format, appended to a reused buffer: between [`Rows::begin`] and [`Rows::end`].
//!
//! Format: <https://www.postgresql.org/docs/15/sql-copy.html>, "Binary Format". Column order is that of
//! the statement constants beside each encoder.

use crate::pipeline::outcome::{Delta, LedgerRow, ParkedRow, Previous, RawRow, RefusedRow};

/// Postgres counts microseconds from 2000-01-01; this is that moment in microseconds since 1970.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Statement for [`Rows::ledger`].
pub const COPY_LEDGER: &str = "copy millrace.ledger (seq, log_offset, amount, occurred_at, \
    recorded_at, partition, verdict, id, digest, currency, debit_account, credit_account, kind, \
    source, reference, metadata, debit_previous, credit_previous) from stdin (format binary)";

/// Statement for [`Rows::refused`].
pub const COPY_REFUSED: &str = "copy millrace.refused (partition, seq, log_offset, reason, detail, \
    recorded_at, record_timestamp, key, value, headers, id, debit_account, credit_account, amount, \
    currency, occurred_at) from stdin (format binary)";

/// Statement for [`Rows::parked`].
pub const COPY_PARKED: &str = "copy millrace.parked (partition, seq, log_offset, reason, detail, \
    recorded_at, record_timestamp, key, value, headers, id) from stdin (format binary)";

/// Statement for [`Rows::balances`].
pub const COPY_BALANCES: &str = "copy millrace.balances (account, currency, partition, transactions, \
    last_occurred_at, debits, credits, last_seq) from stdin (format binary)";

/// A buffer of rows.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// Appends what comes before the first row.
    pub fn begin(&mut self) {
        self.0.extend_from_slice(SIGNATURE);
        self.0.extend_from_slice(&[0; 8]);
    }

    /// Appends what comes after the last row.
    pub fn end(&mut self) {
        self.0.extend_from_slice(&(-1i16).to_be_bytes());
    }

    /// What is in the buffer.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Empties the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends rows of `ledger`. `slices` are the last `seq` of the slices before the batch, in the order of its
    /// balances.
    pub fn ledger(&mut self, rows: &[LedgerRow<'_>], recorded_at: i64, slices: &[Option<i64>]) {
        let seq = |previous| match previous {
            Previous::None => None,
            Previous::Row(seq) => Some(seq),
            Previous::Slice(index) => slices[index],
        };
        for row in rows {
            let transaction = row.transaction;
            self.0.extend_from_slice(&18i16.to_be_bytes());
            self.int8(row.seq);
            self.int8(row.log_offset);
            self.int8(transaction.amount.minor_units());
            self.timestamp(transaction.occurred_at);
            self.timestamp(recorded_at);
            self.int4(row.partition);
            self.int2(row.verdict);
            self.bytes(transaction.id.as_bytes());
            self.bytes(&row.digest);
            self.text(transaction.currency.code());
            self.text(transaction.debit_account.as_str());
            self.text(transaction.credit_account.as_str());
            self.text(&transaction.kind);
            self.text(&transaction.source);
            if transaction.reference.is_empty() {
                self.null();
            } else {
                self.text(&transaction.reference);
            }
            if transaction.metadata.pairs().is_empty() {
                self.null();
            } else {
                self.jsonb(&transaction.metadata);
            }
            self.int8_or_null(seq(row.debit_previous));
            self.int8_or_null(seq(row.credit_previous));
        }
    }

    /// Appends rows of `refused`.
    pub fn refused(&mut self, rows: &[RefusedRow<'_>], recorded_at: i64) {
        for RefusedRow { raw, read } in rows {
            self.0.extend_from_slice(&16i16.to_be_bytes());
            self.raw(raw, recorded_at);
            self.uuid(read.id);
            self.text(&read.debit_account);
            self.text(&read.credit_account);
            self.int8_or_null(read.amount);
            self.text(&read.currency);
            match read.occurred_at {
                Some(micros) => self.timestamp(micros),
                None => self.null(),
            }
        }
    }

    /// Appends rows of `parked`.
    pub fn parked(&mut self, rows: &[ParkedRow<'_>], recorded_at: i64) {
        for ParkedRow { raw, id } in rows {
            self.0.extend_from_slice(&11i16.to_be_bytes());
            self.raw(raw, recorded_at);
            self.uuid(*id);
        }
    }

    /// Appends rows of `balances`: slices that begin with these changes.
    pub fn balances(&mut self, deltas: &[&Delta<'_>]) {
        for delta in deltas {
            self.0.extend_from_slice(&8i16.to_be_bytes());
            self.text(delta.account);
            self.text(delta.currency);
            self.int4(delta.partition);
            self.int8(delta.transactions);
            self.timestamp(delta.last_occurred_at);
            self.numeric(delta.debits.unsigned_abs());
            self.numeric(delta.credits.unsigned_abs());
            self.int8(delta.last_seq);
        }
    }

    fn raw(&mut self, row: &RawRow<'_>, recorded_at: i64) {
        self.int4(row.partition);
        self.int8(row.seq);
        self.int8(row.log_offset);
        self.int2(row.reason);
        self.text(&row.detail);
        self.timestamp(recorded_at);
        self.int8_or_null(row.record_timestamp);
        for bytes in [row.key, row.value, Some(row.headers)] {
            match bytes {
                Some(bytes) => self.bytes(bytes),
                None => self.null(),
            }
        }
    }

    fn null(&mut self) {
        self.0.extend_from_slice(&(-1i32).to_be_bytes());
    }

    fn int2(&mut self, number: i16) {
        self.bytes(&number.to_be_bytes());
    }

    fn int4(&mut self, number: i32) {
        self.bytes(&number.to_be_bytes());
    }

    fn int8(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn int8_or_null(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.int8(number),
            None => self.null(),
        }
    }

    fn timestamp(&mut self, micros: i64) {
        self.int8(micros - POSTGRES_EPOCH_MICROS);
    }

    /// Digits of base 10,000, the highest first and without zeros at the end; before them their number, the weight of
    /// the first one, sign and scale (`numeric_send` in Postgres).
    fn numeric(&mut self, number: u64) {
        // 64 bits are at most 5 digits.
        let mut digits = [0; 5];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = u16::try_from(rest % 10_000).expect("below 10,000");
            rest /= 10_000;
        }
        let first = digits.iter().position(|digit| *digit != 0).unwrap_or(5);
        let last = digits
            .iter()
            .rposition(|digit| *digit != 0)
            .map_or(first, |last| last + 1);
        let digits = &digits[first..last];
        self.0.extend_from_slice(&length(8 + 2 * digits.len()));
        let count = u16::try_from(digits.len()).expect("at most 5");
        let weight = u16::try_from(4usize.saturating_sub(first)).expect("at most 4");
        for word in [count, weight, 0, 0].iter().chain(digits) {
            self.0.extend_from_slice(&word.to_be_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn uuid(&mut self, id: Option<uuid::Uuid>) {
        match id {
            Some(id) => self.bytes(id.as_bytes()),
            None => self.null(),
        }
    }

    /// Version 1 of the binary form: the version and the JSON text.
    fn jsonb(&mut self, metadata: &millrace_schemas::wire::Metadata<'_>) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0, 0, 0, 1]);
        serde_json::to_writer(&mut self.0, metadata).expect("strings into memory do not fail");
        let length = length(self.0.len() - start - 4);
        self.0[start..start + 4].copy_from_slice(&length);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&length(bytes.len()));
        self.0.extend_from_slice(bytes);
    }
}

/// Fields are parts of Kafka records, whose lengths are 32-bit numbers.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_of_base_ten_thousand() {
        let encoded = |number| {
            let mut rows = Rows::default();
            rows.numeric(number);
            let words = rows.0[4..]
                .chunks(2)
                .map(|word| u16::from_be_bytes([word[0], word[1]]));
            let words: Vec<_> = words.collect();
            assert_eq!(rows.0[..4], length(2 * words.len()));
            words
        };
        for (number, words) in [
            (0, vec![0, 0, 0, 0]),
            (1, vec![1, 0, 0, 0, 1]),
            (10_000, vec![1, 1, 0, 0, 1]),
            (1_230_000, vec![1, 1, 0, 0, 123]),
            (1_230_004, vec![2, 1, 0, 0, 123, 4]),
            (100_000_000_000_004, vec![4, 3, 0, 0, 100, 0, 0, 4]),
            (u64::MAX, vec![5, 4, 0, 0, 1844, 6744, 737, 955, 1615]),
        ] {
            assert_eq!(encoded(number), words, "{number}");
        }
    }
}
