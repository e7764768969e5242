//! Rows in Postgres' binary COPY format, appended to a reused buffer.
//!
//! Format: <https://www.postgresql.org/docs/15/sql-copy.html>, "Binary Format". Column order is that of
//! the statement constants beside each encoder.

use crate::pipeline::outcome::{LedgerRow, ParkedRow, RawRow, RefusedRow};

/// Postgres counts microseconds from 2000-01-01; this is that moment in microseconds since 1970.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Statement for [`Rows::ledger`].
pub const COPY_LEDGER: &str = "copy millrace.ledger (seq, log_offset, amount, occurred_at, \
    recorded_at, partition, verdict, id, digest, currency, debit_account, credit_account, kind, \
    source, reference, metadata) from stdin (format binary)";

/// Statement for [`Rows::refused`].
pub const COPY_REFUSED: &str = "copy millrace.refused (partition, seq, log_offset, reason, detail, \
    recorded_at, record_timestamp, key, value, headers, id, debit_account, credit_account, amount, \
    currency, occurred_at) from stdin (format binary)";

/// Statement for [`Rows::parked`].
pub const COPY_PARKED: &str = "copy millrace.parked (partition, seq, log_offset, reason, detail, \
    recorded_at, record_timestamp, key, value, headers, id) from stdin (format binary)";

/// A buffer of rows.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// The encoded rows of `ledger`.
    pub fn ledger(&mut self, rows: &[LedgerRow<'_>], recorded_at: i64) -> &[u8] {
        self.begin();
        for row in rows {
            let transaction = row.transaction;
            self.0.extend_from_slice(&16i16.to_be_bytes());
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
        }
        self.end()
    }

    /// The encoded rows of `refused`.
    pub fn refused(&mut self, rows: &[RefusedRow<'_>], recorded_at: i64) -> &[u8] {
        self.begin();
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
        self.end()
    }

    /// The encoded rows of `parked`.
    pub fn parked(&mut self, rows: &[ParkedRow<'_>], recorded_at: i64) -> &[u8] {
        self.begin();
        for ParkedRow { raw, id } in rows {
            self.0.extend_from_slice(&11i16.to_be_bytes());
            self.raw(raw, recorded_at);
            self.uuid(*id);
        }
        self.end()
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

    fn begin(&mut self) {
        self.0.clear();
        self.0.extend_from_slice(SIGNATURE);
        self.0.extend_from_slice(&[0; 8]);
    }

    fn end(&mut self) -> &[u8] {
        self.0.extend_from_slice(&(-1i16).to_be_bytes());
        &self.0
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
