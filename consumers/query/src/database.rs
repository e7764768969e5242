//! The pools, and what errors of the database mean for a client.

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
const SETTINGS: [(&str, &str); 8] = [
    ("role", "millrace_reader"),
    ("default_transaction_read_only", "on"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    ("idle_in_transaction_session_timeout", "10s"),
    // Compiling costs more than any of these queries gains by it.
    ("jit", "off"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// For queries whose best plan depends on what is asked for: accounts differ by orders of magnitude.
const PLANNED_EACH_TIME: [(&str, &str); 1] = [("plan_cache_mode", "force_custom_plan")];

/// For queries by key, which have one good plan: making it takes three times as long as following it. No plan
/// that was made while a table was empty may be a scan of all of it, for it stays.
const PLANNED_ONCE: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// Connections to the database, opened when they are first needed.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For queries by key.
    pub by_key: PgPool,
    /// For all others.
    pub any: PgPool,
}

impl Pools {
    /// With at most so many connections, and at least one each.
    pub fn new(database: PgConnectOptions, connections_max: u32) -> Self {
        let database = database
            .application_name("millrace query")
            .options(SETTINGS);
        let by_key = connections_max / 2;
        Self {
            by_key: pool(database.clone(), by_key, &PLANNED_ONCE),
            any: pool(database, connections_max - by_key, &PLANNED_EACH_TIME),
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.by_key.close().await;
        self.any.close().await;
    }
}

fn pool(database: PgConnectOptions, connections_max: u32, planning: &[(&str, &str)]) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(database.options(planning.iter().copied()))
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
