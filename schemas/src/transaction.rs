//! The validated transaction.

use std::borrow::Cow;

use jiff::Timestamp;
use millrace_rules::account::ACCOUNT_PATTERN;
use millrace_rules::{AccountId, Amount, Currency, Reason, Transfer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::wire::{Metadata, Wire};

/// The longest kind, in characters.
pub const KIND_CHARS_MAX: usize = 64;
/// The longest reference, in characters.
pub const REFERENCE_CHARS_MAX: usize = 140;
/// The longest source, in characters.
pub const SOURCE_CHARS_MAX: usize = 64;
/// The largest metadata: bytes of all keys and values together.
pub const METADATA_BYTES_MAX: usize = 4096;
/// The earliest time: 1900-01-01T00:00:00Z, in microseconds since 1970.
pub const OCCURRED_AT_MIN: i64 = -2_208_988_800_000_000;
/// The latest time: 9998-12-31T23:59:59.999999Z, in microseconds since 1970.
pub const OCCURRED_AT_MAX: i64 = 253_370_764_799_999_999;

/// The version of the canonical bytes that the digest covers.
const DIGEST_VERSION: u8 = 1;

/// The business event: move `amount` from `debit_account` to `credit_account`. Every field is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Unique across the system; never nil.
    pub id: Uuid,
    /// What sort of transaction, in the sender's words.
    pub kind: Cow<'a, str>,
    /// Where the money comes from.
    pub debit_account: AccountId<'a>,
    /// Where the money goes to; another account.
    pub credit_account: AccountId<'a>,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub currency: Currency,
    /// Microseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
    /// Free text; may be empty.
    pub reference: Cow<'a, str>,
    /// The upstream system.
    pub source: Cow<'a, str>,
    /// Free key and value pairs.
    pub metadata: Metadata<'a>,
}

/// Why fields are not a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    /// The first reason in order of precedence.
    pub reason: Reason,
    /// The offending value and what would be right.
    pub detail: String,
}

impl<'a> TryFrom<Wire<'a>> for Transaction<'a> {
    type Error = (Wire<'a>, Invalid);

    fn try_from(wire: Wire<'a>) -> Result<Self, Self::Error> {
        match check(&wire) {
            Err(invalid) => Err((wire, invalid)),
            Ok(checked) => Ok(checked.into_transaction(wire)),
        }
    }
}

impl<'a> Transaction<'a> {
    /// What the decision needs of it.
    pub fn transfer(&self) -> Transfer<'_> {
        Transfer {
            id: self.id.into_bytes(),
            digest: self.digest(),
            debit: &self.debit_account,
            credit: &self.credit_account,
            amount: self.amount,
            currency: self.currency,
        }
    }

    /// SHA-256 over the canonical bytes: a version, then every field with its length, numbers as
    /// big-endian, metadata in order of its keys. The same whether the fields came as Avro, JSON or
    /// CSV. Fields added later count only when they are not their default.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = CanonicalHash(Sha256::new());
        hash.0.update([DIGEST_VERSION]);
        hash.0.update(self.id.as_bytes());
        hash.text(&self.kind);
        hash.text(self.debit_account.as_str());
        hash.text(self.credit_account.as_str());
        hash.0.update(self.amount.minor_units().to_be_bytes());
        hash.text(self.currency.code());
        hash.0.update(self.occurred_at.to_be_bytes());
        hash.text(&self.reference);
        hash.text(&self.source);
        hash.length(self.metadata.pairs().len());
        for (key, value) in self.metadata.pairs() {
            hash.text(key);
            hash.text(value);
        }
        hash.0.finalize().into()
    }

    /// The fields as they are sent, borrowing what this transaction borrows.
    pub fn into_wire(self) -> Wire<'a> {
        Wire {
            id: Cow::Owned(self.id.to_string()),
            kind: self.kind,
            debit_account: self.debit_account.into_inner(),
            credit_account: self.credit_account.into_inner(),
            amount: self.amount.minor_units(),
            currency: Cow::Borrowed(self.currency.code()),
            occurred_at: self.occurred_at,
            reference: self.reference,
            source: self.source,
            metadata: self.metadata,
            misread: None,
        }
    }

    /// The fields as they are sent.
    pub fn to_wire(&self) -> Wire<'_> {
        Wire {
            id: Cow::Owned(self.id.to_string()),
            kind: Cow::Borrowed(&self.kind),
            debit_account: Cow::Borrowed(self.debit_account.as_str()),
            credit_account: Cow::Borrowed(self.credit_account.as_str()),
            amount: self.amount.minor_units(),
            currency: Cow::Borrowed(self.currency.code()),
            occurred_at: self.occurred_at,
            reference: Cow::Borrowed(&self.reference),
            source: Cow::Borrowed(&self.source),
            metadata: self.metadata.clone(),
            misread: None,
        }
    }
}

struct CanonicalHash(Sha256);

impl CanonicalHash {
    fn length(&mut self, length: usize) {
        self.0.update((length as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.update(text);
    }
}

/// The fields that validation parses into another type.
struct Checked {
    id: Uuid,
    amount: Amount,
    currency: Currency,
}

impl Checked {
    fn into_transaction(self, wire: Wire<'_>) -> Transaction<'_> {
        let account = |id| AccountId::parse(id).expect("the account was checked");
        Transaction {
            id: self.id,
            kind: wire.kind,
            debit_account: account(wire.debit_account),
            credit_account: account(wire.credit_account),
            amount: self.amount,
            currency: self.currency,
            occurred_at: wire.occurred_at,
            reference: wire.reference,
            source: wire.source,
            metadata: wire.metadata,
        }
    }
}

/// Checks in the order of [`Reason`].
fn check(wire: &Wire<'_>) -> Result<Checked, Invalid> {
    let id = Uuid::try_parse(&wire.id)
        .ok()
        .filter(|id| !id.is_nil())
        .ok_or_else(|| invalid(Reason::InvalidId, &wire.id, "a UUID other than nil"))?;
    check_text(Reason::InvalidKind, &wire.kind, 1, KIND_CHARS_MAX)?;
    check_account(Reason::InvalidDebitAccount, &wire.debit_account)?;
    check_account(Reason::InvalidCreditAccount, &wire.credit_account)?;
    if wire.debit_account == wire.credit_account {
        return Err(Invalid {
            reason: Reason::SameAccount,
            detail: format!(
                "debit_account and credit_account are both {:?}",
                wire.debit_account
            ),
        });
    }
    let amount = Amount::new(wire.amount).ok_or_else(|| {
        let misread = wire.misread.as_ref().and_then(|m| m.amount.clone());
        let found = misread.unwrap_or_else(|| wire.amount.to_string());
        invalid(
            Reason::InvalidAmount,
            &found,
            "a whole number of minor units from 1 to 10^15",
        )
    })?;
    let currency = Currency::parse(&wire.currency).ok_or_else(|| {
        invalid(
            Reason::InvalidCurrency,
            &wire.currency,
            "an ISO 4217 code with minor units",
        )
    })?;
    if !(OCCURRED_AT_MIN..=OCCURRED_AT_MAX).contains(&wire.occurred_at) {
        let misread = wire.misread.as_ref().and_then(|m| m.occurred_at.clone());
        let found = misread.unwrap_or_else(|| shown_time(wire.occurred_at));
        return Err(invalid(
            Reason::InvalidOccurredAt,
            &found,
            "a time, RFC 3339 with its zone such as 2026-01-31T12:00:00Z, within the years 1900 to 9998",
        ));
    }
    check_text(
        Reason::InvalidReference,
        &wire.reference,
        0,
        REFERENCE_CHARS_MAX,
    )?;
    check_text(Reason::InvalidSource, &wire.source, 1, SOURCE_CHARS_MAX)?;
    check_metadata(&wire.metadata)?;
    Ok(Checked {
        id,
        amount,
        currency,
    })
}

/// As it may have been sent; times that no calendar has stay microseconds.
fn shown_time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}

fn check_account(reason: Reason, id: &str) -> Result<(), Invalid> {
    match AccountId::parse(Cow::Borrowed(id)) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(reason, id, ACCOUNT_PATTERN)),
    }
}

fn check_text(reason: Reason, text: &str, min: usize, max: usize) -> Result<(), Invalid> {
    // Most texts are short ASCII: their length in bytes already answers.
    let fits = text.len() >= min && (text.len() <= max || text.chars().count() <= max);
    if fits && is_printable(text) {
        return Ok(());
    }
    Err(invalid(
        reason,
        text,
        &format!("{min} to {max} characters without control characters"),
    ))
}

fn check_metadata(metadata: &Metadata<'_>) -> Result<(), Invalid> {
    if metadata.size_bytes() > METADATA_BYTES_MAX {
        return Err(Invalid {
            reason: Reason::InvalidMetadata,
            detail: format!(
                "metadata has {} bytes of keys and values, and may have {METADATA_BYTES_MAX}",
                metadata.size_bytes()
            ),
        });
    }
    match metadata
        .pairs()
        .iter()
        .find(|(key, value)| !is_printable(key) || !is_printable(value))
    {
        None => Ok(()),
        Some((key, _)) => Err(invalid(
            Reason::InvalidMetadata,
            key,
            "keys and values without control characters",
        )),
    }
}

fn is_printable(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().all(|b| (b' '..=b'~').contains(&b))
    } else {
        !text.chars().any(char::is_control)
    }
}

fn invalid(reason: Reason, found: &str, expected: &str) -> Invalid {
    // A refused value may be as large as a record: its beginning is enough to recognise it.
    let shown: String = found.chars().take(80).collect();
    let field = reason.as_str().trim_start_matches("invalid_");
    Invalid {
        reason,
        detail: format!("{field} {shown:?} is not {expected}"),
    }
}
