//! The query service: API and console over schema `reports`, as a role that can read nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | the routes under `/v1`, their document |
//! | [`console`] | the pages for people |
//! | [`reports`] | the views as data: one description for SQL, JSON, CSV and the document |
//! | [`store`] | the other statements |
//! | [`freshness`] | how fresh an answer is; waiting until it is fresh enough |
//! | [`database`] | the pools; what its errors mean for a client |

pub mod api;
pub mod console;
pub mod database;
pub mod freshness;
pub mod reports;
pub mod store;

use axum::Router;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::database::Pools;
use crate::freshness::Freshness;

/// What the service needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database; the user must be a member of `millrace_reader`.
    pub database: PgConnectOptions,
    /// The most connections to it, and at least two.
    pub connections_max: u32,
}

/// The service. Clones share everything.
#[derive(Debug, Clone)]
pub struct Query {
    pools: Pools,
    freshness: Freshness,
    console: console::Cache,
}

impl Query {
    /// Connects when the first request comes; the database may be away at any time.
    pub fn new(options: Options) -> Self {
        let pools = Pools::new(options.database, options.connections_max);
        Self {
            freshness: Freshness::new(pools.by_key.clone()),
            console: console::Cache::default(),
            pools,
        }
    }

    /// API, document and pages.
    pub fn router(&self) -> Router {
        api::router(self.clone()).merge(console::router(self.clone()))
    }

    /// Whether the database answers, and how fresh it is.
    pub async fn readiness(&self) -> (bool, Value) {
        match self.freshness.as_of(None).await {
            Ok(as_of) => {
                let as_of_text = as_of.time().map(|time| time.to_string());
                let detail = json!({
                    "ready": true, "problems": [], "as_of": as_of_text,
                    "staleness_ms": as_of.staleness_ms(),
                });
                (true, detail)
            }
            Err(error) => {
                let problem = error.into_problem();
                (
                    false,
                    json!({"ready": false, "problems": [problem.detail()]}),
                )
            }
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pools.close().await;
    }
}
