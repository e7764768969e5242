//! Every verdict and every reason, with the codes that are stored and the order of precedence.

/// What became of a record. The first three are normal results, never errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// In the ledger; balances and read models moved.
    Posted,
    /// The same id with the same content was seen before; nothing moved.
    Duplicate,
    /// Not applied, for good.
    Rejected(Reason),
    /// Waits for an operator.
    Parked(ParkReason),
}

/// Why a record was rejected.
///
/// **Precedence**: the first reason in the order of this enum that applies is the one given. The
/// codes are stored and never change; the enum may be reordered, the codes not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The id is not a UUID, or the nil UUID.
    InvalidId,
    /// The kind is empty, too long or has control characters.
    InvalidKind,
    /// The debit account does not fit the pattern.
    InvalidDebitAccount,
    /// The credit account does not fit the pattern.
    InvalidCreditAccount,
    /// Debit and credit account are the same.
    SameAccount,
    /// The amount is not between 1 and 10^15 minor units.
    InvalidAmount,
    /// Not an ISO 4217 currency with minor units.
    InvalidCurrency,
    /// The time lies outside the years 1900 to 9998.
    InvalidOccurredAt,
    /// The reference is too long or has control characters.
    InvalidReference,
    /// The source is empty, too long or has control characters.
    InvalidSource,
    /// The metadata is too large, repeats a key or has control characters.
    InvalidMetadata,
    /// The Kafka key is not the derived key, or the partition is not the key's.
    Misrouted,
    /// The id is known with other content.
    IdConflict,
    /// The debit account is closed.
    DebitAccountClosed,
    /// The credit account is closed.
    CreditAccountClosed,
    /// The debit account is frozen: it takes credits only.
    DebitAccountFrozen,
    /// The debit would take the balance below the overdraft limit.
    InsufficientFunds,
}

impl Reason {
    /// All reasons in order of precedence.
    pub const ALL: [Self; 17] = [
        Self::InvalidId,
        Self::InvalidKind,
        Self::InvalidDebitAccount,
        Self::InvalidCreditAccount,
        Self::SameAccount,
        Self::InvalidAmount,
        Self::InvalidCurrency,
        Self::InvalidOccurredAt,
        Self::InvalidReference,
        Self::InvalidSource,
        Self::InvalidMetadata,
        Self::Misrouted,
        Self::IdConflict,
        Self::DebitAccountClosed,
        Self::CreditAccountClosed,
        Self::DebitAccountFrozen,
        Self::InsufficientFunds,
    ];

    /// Whether the verdict is bound to the id for ever (a row of the ledger), or the record is
    /// refused as one that names no transaction (a row of `refused`).
    pub const fn binds_id(self) -> bool {
        match self {
            Self::DebitAccountClosed
            | Self::CreditAccountClosed
            | Self::DebitAccountFrozen
            | Self::InsufficientFunds => true,
            Self::InvalidId
            | Self::InvalidKind
            | Self::InvalidDebitAccount
            | Self::InvalidCreditAccount
            | Self::SameAccount
            | Self::InvalidAmount
            | Self::InvalidCurrency
            | Self::InvalidOccurredAt
            | Self::InvalidReference
            | Self::InvalidSource
            | Self::InvalidMetadata
            | Self::Misrouted
            | Self::IdConflict => false,
        }
    }

    /// The code in the database; 0 is `posted`.
    pub const fn code(self) -> i16 {
        match self {
            Self::InvalidId => 1,
            Self::InvalidKind => 2,
            Self::InvalidDebitAccount => 3,
            Self::InvalidCreditAccount => 4,
            Self::SameAccount => 5,
            Self::InvalidAmount => 6,
            Self::InvalidCurrency => 7,
            Self::InvalidOccurredAt => 8,
            Self::InvalidReference => 9,
            Self::InvalidSource => 10,
            Self::InvalidMetadata => 11,
            Self::Misrouted => 12,
            Self::IdConflict => 13,
            Self::DebitAccountClosed => 14,
            Self::CreditAccountClosed => 15,
            Self::DebitAccountFrozen => 16,
            Self::InsufficientFunds => 17,
        }
    }

    /// The reason of a stored code.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The stable name, in SQL views, API answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::InvalidKind => "invalid_kind",
            Self::InvalidDebitAccount => "invalid_debit_account",
            Self::InvalidCreditAccount => "invalid_credit_account",
            Self::SameAccount => "same_account",
            Self::InvalidAmount => "invalid_amount",
            Self::InvalidCurrency => "invalid_currency",
            Self::InvalidOccurredAt => "invalid_occurred_at",
            Self::InvalidReference => "invalid_reference",
            Self::InvalidSource => "invalid_source",
            Self::InvalidMetadata => "invalid_metadata",
            Self::Misrouted => "misrouted",
            Self::IdConflict => "id_conflict",
            Self::DebitAccountClosed => "debit_account_closed",
            Self::CreditAccountClosed => "credit_account_closed",
            Self::DebitAccountFrozen => "debit_account_frozen",
            Self::InsufficientFunds => "insufficient_funds",
        }
    }
}

/// Why a record waits for an operator, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParkReason {
    /// An earlier record of the same raw key is parked: this one keeps its place behind it.
    Behind,
    /// The bytes name a writer schema that is not known here.
    UnknownSchema,
    /// The bytes are not a transaction in any encoding that is understood.
    Undecodable,
    /// Postgres refused the row itself (SQLSTATE class 22 or 23).
    DatabaseRefused,
}

impl ParkReason {
    /// All park reasons in order of precedence.
    pub const ALL: [Self; 4] = [
        Self::Behind,
        Self::UnknownSchema,
        Self::Undecodable,
        Self::DatabaseRefused,
    ];

    /// The code in the database.
    pub const fn code(self) -> i16 {
        match self {
            Self::Behind => 1,
            Self::UnknownSchema => 2,
            Self::Undecodable => 3,
            Self::DatabaseRefused => 4,
        }
    }

    /// The reason of a stored code.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The stable name, in SQL views, API answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::UnknownSchema => "unknown_schema",
            Self::Undecodable => "undecodable",
            Self::DatabaseRefused => "database_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_round_trip() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        for reason in ParkReason::ALL {
            assert_eq!(ParkReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }

    #[test]
    fn the_list_is_in_order_of_precedence() {
        assert!(Reason::ALL.is_sorted());
        assert!(ParkReason::ALL.is_sorted());
    }
}
