//! What a failed statement means to the caller.

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another transaction was in the way: decide afresh and try again.
    #[error("{0}")]
    Retry(String),
    /// Another owner holds a lock: these partitions must wait for it.
    #[error("{0}")]
    Locked(String),
    /// A row of the ledger itself was refused: find it and park it.
    #[error("{0}")]
    Row(String),
    /// The tables contradict the positions: stop these partitions.
    #[error("{0}")]
    Contradiction(String),
    /// The database is away, locked, full or forbids it: wait and check the positions again.
    #[error("{0}")]
    Unavailable(String),
}

/// Which statement failed; only rows of the ledger can have a culprit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum During {
    LedgerRows,
    Other,
}

impl Error {
    /// Classifies by SQLSTATE and constraint name. See "The ledger group" in ARCHITECTURE.md.
    pub(crate) fn from_sqlx(error: &sqlx::Error, during: During) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::Unavailable(error.to_string());
        };
        let code = database.code().unwrap_or_default();
        let text = format!("{} (SQLSTATE {code})", database.message());
        match (&*code, database.constraint().unwrap_or_default(), during) {
            // serialization_failure, deadlock_detected, or another partition bound the id first.
            ("40001" | "40P01", _, _) | ("23505", "ledger_id_key", _) => Self::Retry(text),
            // lock_not_available
            ("55P03", _, _) => Self::Locked(text),
            (
                "23505",
                "ledger_pkey"
                | "refused_pkey"
                | "parked_pkey"
                | "batches_pkey"
                | "parked_resolutions_pkey",
                _,
            ) => Self::Contradiction(text),
            (code, _, During::LedgerRows) if code.starts_with("22") || code.starts_with("23") => {
                Self::Row(text)
            }
            _ => Self::Unavailable(text),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::from_sqlx(&error, During::Other)
    }
}
