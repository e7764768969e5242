//! What a failed fold means to the caller.

/// Why a range could not be folded. Either way nothing of it counts: roll back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be folded as things are: record it, leave the model behind, go on.
    #[error("{0}")]
    Broken(String),
    /// Nothing is wrong with the model: the database is away, busy or going down. Try again.
    #[error(transparent)]
    Unavailable(sqlx::Error),
}

/// Classes of SQLSTATE that say nothing about the model: connection, read-only or aborted
/// transaction, authorization, conflict with another transaction, out of resources, object not in
/// the right state, shutdown, system error.
const UNAVAILABLE: [&str; 8] = ["08", "25", "28", "40", "53", "55", "57", "58"];

/// A statement timeout or a cancel request, and a lock on the model's table that somebody holds. Of
/// classes 57 and 55, but this fold's own failure.
const OWN: [&str; 2] = ["57014", "55P03"];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let broken = error.as_database_error().and_then(|database| {
            let code = database.code()?;
            let unavailable = UNAVAILABLE.iter().any(|class| code.starts_with(class));
            (!unavailable || OWN.contains(&&*code))
                .then(|| format!("{} (SQLSTATE {code})", database.message()))
        });
        broken.map_or(Self::Unavailable(error), Self::Broken)
    }
}
