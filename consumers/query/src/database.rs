//! The pool, and what its errors mean for a client.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use millrace_http::Problem;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// How long a request waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// `statement_timeout`: a query that runs longer is ended by Postgres.
pub const STATEMENT_TIMEOUT: &str = "5s";

/// A query that a role with no more than `reports` may ask, that changes nothing and that ends.
const SETTINGS: [(&str, &str); 9] = [
    ("role", "millrace_reader"),
    ("default_transaction_read_only", "on"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    ("idle_in_transaction_session_timeout", "10s"),
    // Accounts differ by orders of magnitude: the plan for one is wrong for another.
    ("plan_cache_mode", "force_custom_plan"),
    // Compiling costs more than any of these queries gains by it.
    ("jit", "off"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// A pool that connects when it is first asked, with at most this many connections.
pub fn pool(database: PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(
            database
                .application_name("millrace query")
                .options(SETTINGS),
        )
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client asked for something that is not possible: its problem.
    #[error("{}", .0.detail())]
    Problem(Box<Problem>),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl Error {
    /// The problem to show.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Problem(problem) => *problem,
            Self::Database(error) => problem_of(&error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.into_problem().into_response()
    }
}

/// SQLSTATE of a statement that ran out of time.
const QUERY_CANCELED: &str = "57014";
/// SQLSTATEs of a table or schema that is not there.
const UNDEFINED: [&str; 2] = ["42P01", "3F000"];

fn problem_of(error: &sqlx::Error) -> Problem {
    let unavailable =
        |code, detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    match error {
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(QUERY_CANCELED) => unavailable(
                "query_timeout",
                format!(
                    "the query took longer than {STATEMENT_TIMEOUT} and was ended: ask for less, by filters or by limit"
                ),
            )
            .retry_after(5),
            Some(code) if UNDEFINED.contains(&code) => unavailable(
                "not_migrated",
                "the database is not migrated to this version; an operator runs: millrace migrate"
                    .into(),
            )
            .retry_after(10),
            // Shutting down, starting up, out of connections, out of resources, roles not there yet.
            Some(code) if ["57P", "53", "08", "28", "3D", "22023"].iter().any(|class| code.starts_with(class)) => {
                tracing::warn!(%error, "the database refuses");
                away()
            }
            _ => {
                tracing::error!(%error, "a query failed");
                Problem::internal()
            }
        },
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
            tracing::warn!(%error, "the database does not answer");
            away()
        }
        sqlx::Error::PoolTimedOut => unavailable(
            "database_busy",
            format!(
                "no connection to the database within {} s",
                ACQUIRE_TIMEOUT.as_secs()
            ),
        )
        .retry_after(2),
        _ => {
            tracing::error!(%error, "a query failed");
            Problem::internal()
        }
    }
}

fn away() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "database_unavailable",
        "the database does not answer; nothing is lost, ask again",
    )
    .retry_after(5)
}
