//! A database per test.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tokio::task::LocalSet;

static MIGRATIONS: Migrator = sqlx::migrate!("../ledger/migrations");

/// A migrated database with the read models installed.
#[derive(Clone)]
pub(crate) struct Scratch {
    pub(crate) options: PgConnectOptions,
}

impl Scratch {
    /// A connection with the settings of a lane.
    pub(crate) async fn connect(&self) -> PgConnection {
        let options = self
            .options
            .clone()
            .options([("search_path", "millrace"), ("jit", "off")]);
        options.connect().await.expect("the database was just made")
    }
}

/// Runs a test in a database of its own and removes it, whatever the test does.
pub(crate) async fn in_scratch<Test, Fut>(test: Test)
where
    Test: FnOnce(Scratch) -> Fut + 'static,
    Fut: Future<Output = ()>,
{
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("readmodels_{}_{number}", std::process::id());
    let server = server();
    admin(&server, format!("create database {name}")).await;
    let scratch = Scratch {
        options: server.clone().database(&name),
    };
    // A task of its own, so that a panic ends there.
    let local = LocalSet::new();
    let task = local.spawn_local(async move {
        prepare(&scratch).await;
        test(scratch).await;
    });
    let outcome = local.run_until(task).await;
    admin(&server, format!("drop database {name} with (force)")).await;
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

async fn prepare(scratch: &Scratch) {
    let mut connection = scratch.options.connect().await.unwrap();
    MIGRATIONS.run(&mut connection).await.unwrap();
    millrace_readmodels::install(&mut connection).await.unwrap();
    sqlx::raw_sql(
        "insert into millrace.currencies values ('EUR', 2), ('JPY', 0);
         insert into millrace.reasons values ('verdict', 0, 'posted'),
             ('verdict', 40, 'insufficient_funds'), ('verdict', 13, 'id_conflict'),
             ('parked', 3, 'undecodable')",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

fn server() -> PgConnectOptions {
    let url = std::env::var("DATABASE_URL").expect(
        "DATABASE_URL names no Postgres server: start one with infra/local/up.sh and load its env file",
    );
    PgConnectOptions::from_str(&url).expect("DATABASE_URL is not the URL of a Postgres database")
}

async fn admin(server: &PgConnectOptions, statement: String) {
    let connected = server.connect().await;
    let mut connection = connected.expect("no Postgres answers at DATABASE_URL");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
}
