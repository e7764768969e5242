//! The rows that the proof reads, and what each must be by itself. Also the lines of an export.

use millrace_rules::{Reason, Verdict};
use millrace_schemas::{Transaction, Wire};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::{self, Chain, Numbers};
use crate::store::Micros;
use crate::verify::compare::{Outcome, Stored};
use crate::verify::text;

/// A row of any of the tables that the chain runs over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Row {
    Ledger(Box<LedgerRow>),
    Refused(Box<RawRow>),
    Parked(Box<RawRow>),
    Resolution(ResolutionRow),
}

/// A row of `ledger`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerRow {
    pub(super) seq: i64,
    pub(super) log_offset: i64,
    pub(super) amount: i64,
    #[serde(with = "text::time")]
    pub(super) occurred_at: Micros,
    #[serde(with = "text::time")]
    pub(super) recorded_at: Micros,
    pub(super) verdict: i16,
    pub(super) id: Uuid,
    #[serde(with = "hex")]
    pub(super) digest: Vec<u8>,
    pub(super) currency: String,
    pub(super) debit_account: String,
    pub(super) credit_account: String,
    pub(super) kind: String,
    pub(super) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::json")]
    pub(super) metadata: Option<String>,
}

/// A row of `refused`, or of `parked`, which shows nothing of its record but the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RawRow {
    pub(super) seq: i64,
    pub(super) log_offset: i64,
    pub(super) reason: i16,
    pub(super) detail: String,
    #[serde(with = "text::time")]
    pub(super) recorded_at: Micros,
    pub(super) record_timestamp: Option<i64>,
    #[serde(with = "text::bytes")]
    pub(super) key: Option<Vec<u8>>,
    #[serde(with = "text::bytes")]
    pub(super) value: Option<Vec<u8>>,
    #[serde(with = "hex")]
    pub(super) headers: Vec<u8>,
    pub(super) id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) debit_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credit_account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) amount: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) currency: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "text::maybe_time"
    )]
    pub(super) occurred_at: Option<Micros>,
}

/// A row of `parked_resolutions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResolutionRow {
    pub(super) seq: i64,
    pub(super) parked_seq: i64,
    pub(super) resolution: String,
    pub(super) reason: String,
    pub(super) operator: String,
    #[serde(with = "text::time")]
    pub(super) recorded_at: Micros,
}

impl Row {
    pub(super) fn seq(&self) -> i64 {
        match self {
            Self::Ledger(row) => row.seq,
            Self::Refused(row) | Self::Parked(row) => row.seq,
            Self::Resolution(row) => row.seq,
        }
    }

    fn recorded_at(&self) -> Micros {
        match self {
            Self::Ledger(row) => row.recorded_at,
            Self::Refused(row) | Self::Parked(row) => row.recorded_at,
            Self::Resolution(row) => row.recorded_at,
        }
    }

    /// The offset of the record that the row stands for.
    fn log_offset(&self) -> Option<i64> {
        match self {
            Self::Ledger(row) => Some(row.log_offset),
            Self::Refused(row) | Self::Parked(row) => Some(row.log_offset),
            Self::Resolution(_) => None,
        }
    }

    /// The row must have been written with the batch, and its record must lie in the batch's range, after
    /// the one at `last`. What was replayed has its old place.
    pub(super) fn is_in(&self, batch: &Numbers, last: &mut Option<i64>) -> Result<(), String> {
        if self.recorded_at().0 != batch.recorded_at {
            return Err("the row was recorded at another time than its batch".into());
        }
        let range = batch.from_offset..batch.next_offset;
        if let Some(offset) = self.log_offset().filter(|_| !range.is_empty()) {
            if !range.contains(&offset) {
                return Err(format!("the row has offset {offset}, the batch {range:?}"));
            }
            if last.is_some_and(|last| last >= offset) {
                return Err(format!(
                    "the row has offset {offset}, the one before it {}",
                    last.unwrap_or(-1)
                ));
            }
            *last = Some(offset);
        }
        Ok(())
    }

    /// Adds the row to the chain and the counts, if it is right by itself.
    pub(super) fn enter(&self, chain: &mut Chain, counted: &mut Numbers) -> Result<(), String> {
        match self {
            Self::Ledger(row) => {
                row.check()?;
                chain.ledger(&row.for_chain());
                match row.verdict()? {
                    Verdict::Posted => counted.posted += 1,
                    _ => counted.rejected += 1,
                }
            }
            Self::Refused(row) => {
                chain.refused(&row.for_chain(), &row.readable());
                counted.refused += 1;
            }
            Self::Parked(row) => {
                chain.parked(&row.for_chain(), row.id.map(Uuid::into_bytes));
                counted.parked += 1;
            }
            Self::Resolution(row) => {
                row.check()?;
                chain.resolution(&row.for_chain());
                counted.parked -= 1;
                counted.discarded += i32::from(row.is_discarded());
            }
        }
        Ok(())
    }
}

impl LedgerRow {
    fn verdict(&self) -> Result<Verdict, String> {
        match self.verdict {
            0 => Ok(Verdict::Posted),
            code => Reason::from_code(code)
                .filter(|reason| reason.binds_id())
                .map(Verdict::Rejected)
                .ok_or_else(|| {
                    format!("the row's verdict is {code}, which is none of the ledger's")
                }),
        }
    }

    /// The stored digest must be that of the stored content.
    fn check(&self) -> Result<(), String> {
        let metadata = match &self.metadata {
            None => Ok(millrace_schemas::wire::Metadata::default()),
            Some(text) => serde_json::from_str(text),
        };
        let wire = Wire {
            id: self.id.to_string().into(),
            kind: self.kind.as_str().into(),
            debit_account: self.debit_account.as_str().into(),
            credit_account: self.credit_account.as_str().into(),
            amount: self.amount,
            currency: self.currency.as_str().into(),
            occurred_at: self.occurred_at.0,
            reference: self.reference.as_deref().unwrap_or_default().into(),
            source: self.source.as_str().into(),
            metadata: metadata.map_err(|error| format!("the row's metadata: {error}"))?,
            misread: None,
        };
        let transaction = Transaction::try_from(wire)
            .map_err(|(_, invalid)| format!("the row is no valid transaction: {invalid}"))?;
        if transaction.digest()[..] == self.digest[..] {
            Ok(())
        } else {
            Err(format!(
                "the content of transaction {} is not what its digest says",
                self.id
            ))
        }
    }

    fn for_chain(&self) -> chain::LedgerRow<'_> {
        chain::LedgerRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            verdict: self.verdict,
            digest: &self.digest,
        }
    }
}

impl ResolutionRow {
    fn is_discarded(&self) -> bool {
        self.resolution == "discarded"
    }

    fn check(&self) -> Result<(), String> {
        if self.parked_seq < self.seq {
            Ok(())
        } else {
            Err(format!("the row resolves a later one, {}", self.parked_seq))
        }
    }

    fn for_chain(&self) -> chain::ResolutionRow<'_> {
        chain::ResolutionRow {
            seq: self.seq,
            parked_seq: self.parked_seq,
            recorded_at: self.recorded_at.0,
            is_discarded: self.is_discarded(),
            reason: &self.reason,
            operator: &self.operator,
        }
    }
}

impl RawRow {
    fn for_chain(&self) -> chain::RawRow<'_> {
        chain::RawRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            reason: self.reason,
            detail: &self.detail,
            record_timestamp: self.record_timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    /// As a record of the log is held against it.
    pub(super) fn stored(&self, table: &'static str) -> Stored<'_> {
        Stored {
            seq: self.seq,
            offset: self.log_offset,
            outcome: Outcome::Kept {
                table,
                timestamp: self.record_timestamp,
                key: self.key.as_deref(),
                value: self.value.as_deref(),
                headers: &self.headers,
            },
        }
    }

    fn readable(&self) -> chain::Readable<'_> {
        chain::Readable {
            id: self.id.map(Uuid::into_bytes),
            debit_account: self.debit_account.as_deref(),
            credit_account: self.credit_account.as_deref(),
            amount: self.amount,
            currency: self.currency.as_deref(),
            occurred_at: self.occurred_at.map(|at| at.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawRow {
        RawRow {
            seq: 1,
            log_offset: 2,
            reason: 3,
            detail: "d\u{1}\"".into(),
            recorded_at: Micros(1_767_323_045_000_001),
            record_timestamp: None,
            key: Some(Vec::new()),
            value: None,
            headers: vec![0, 255],
            id: Some(Uuid::from_u128(5)),
            debit_account: Some(String::new()),
            credit_account: None,
            amount: Some(-7),
            currency: Some("eur".into()),
            occurred_at: Some(Micros(-2_208_988_800_000_000)),
        }
    }

    #[test]
    fn every_kind_of_row_comes_back_from_its_line() {
        let ledger = |metadata: Option<&str>| LedgerRow {
            seq: 1,
            log_offset: 2,
            amount: 3,
            occurred_at: Micros(253_370_764_799_999_999),
            recorded_at: Micros(0),
            verdict: 0,
            id: Uuid::from_u128(4),
            digest: vec![7; 32],
            currency: "EUR".into(),
            debit_account: "a".into(),
            credit_account: "b".into(),
            kind: "k".into(),
            source: "s".into(),
            reference: metadata.map(str::to_owned),
            metadata: metadata.map(str::to_owned),
        };
        let parked = RawRow {
            debit_account: None,
            amount: None,
            currency: None,
            occurred_at: None,
            ..raw()
        };
        for row in [
            Row::Ledger(Box::new(ledger(None))),
            Row::Ledger(Box::new(ledger(Some("{\"k\": \"v\", \"a\": \"\\u00e9\"}")))),
            Row::Refused(Box::new(raw())),
            Row::Parked(Box::new(parked)),
            Row::Resolution(ResolutionRow {
                seq: 1,
                parked_seq: 0,
                resolution: "discarded".into(),
                reason: "r".into(),
                operator: "o".into(),
                recorded_at: Micros(1),
            }),
        ] {
            let line = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&line).unwrap(), row, "{line}");
        }
    }
}
