//! Postgres behind the simulation: the ledger's own store and statements, a database per run.

use std::rc::Rc;

use millrace_ledger::chain::{Head, Numbers};
use millrace_ledger::store::positions::{self, Acceptance, Found};
use millrace_ledger::store::postgres::Postgres;
use millrace_ledger::store::{Error, policies, schema};
use millrace_ledger::verify::{self, verify};
use millrace_rules::{AccountId, Currency};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::backend::{Backend, Policy, PolicyChange};
use crate::oracle::Oracle;
use crate::rows::{LedgerRow, RawRow, RefusedRow, ResolutionRow, Slice};
use crate::simulation::{self, Options, Report};
use crate::tables::Tables;

/// Lets the database refuse one amount until it is mended.
const REFUSE: &str = "
    create table public.mended ();
    grant select on public.mended to public;
    create function public.refuses(amount bigint) returns boolean language sql stable as
        'select amount = 666 and not exists (select from public.mended)';
    alter table millrace.ledger add constraint not_this check (not public.refuses(amount))";

/// A server, and a migrated database on it of which each run gets a copy.
#[derive(Debug)]
pub struct Server {
    options: PgConnectOptions,
    template: String,
}

impl Server {
    /// Makes the database that is copied. The login must be allowed to create databases and end connections.
    pub async fn prepare(options: &PgConnectOptions) -> Result<Self, String> {
        let template = format!("millrace-sim-{}", Uuid::new_v4().simple());
        let server = Self {
            options: options.clone(),
            template,
        };
        server
            .execute(&format!("create database \"{}\"", server.template))
            .await?;
        let mut connection = server.connect(&server.template).await?;
        schema::migrate(&mut connection).await.map_err(text)?;
        sqlx::raw_sql(REFUSE)
            .execute(&mut connection)
            .await
            .map_err(text)?;
        Ok(server)
    }

    /// Runs one seed.
    pub async fn run(&self, seed: u64, options: Options) -> Result<Report, String> {
        let name = format!("{}-{seed}", self.template);
        let template = &self.template;
        self.execute(&format!(
            "create database \"{name}\" template \"{template}\""
        ))
        .await?;
        let backend = PostgresBackend {
            options: self.options.clone().database(&name),
            admin: Mutex::new(self.connect(&name).await?),
        };
        let report = simulation::run(seed, options, backend).await;
        self.drop_database(&name).await?;
        Ok(report)
    }

    /// Drops what [`Server::prepare`] has made.
    pub async fn tidy(self) -> Result<(), String> {
        self.drop_database(&self.template).await
    }

    async fn drop_database(&self, name: &str) -> Result<(), String> {
        self.execute(&format!("drop database \"{name}\" with (force)"))
            .await
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, String> {
        let options = self.options.clone().database(database);
        options.connect().await.map_err(text)
    }

    async fn execute(&self, statement: &str) -> Result<(), String> {
        let mut connection = self.options.connect().await.map_err(text)?;
        let statement = AssertSqlSafe(statement.to_owned());
        let done = sqlx::raw_sql(statement).execute(&mut connection).await;
        done.map(drop).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The database of one run.
pub struct PostgresBackend {
    options: PgConnectOptions,
    /// An operator's connection.
    admin: Mutex<PgConnection>,
}

impl Backend for PostgresBackend {
    type Store = Postgres;

    fn connect(&self, session: u64) -> Postgres {
        Postgres::new(self.options.clone(), owner(session))
    }

    async fn end(&self, session: u64) -> Result<(), Error> {
        // Waits up to five seconds for the backend to be gone, and its locks with it.
        sqlx::query(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
             where datname = current_database() and application_name = $1",
        )
        .bind(format!("millrace ledger {}", owner(session)))
        .execute(&mut *self.admin.lock().await)
        .await?;
        Ok(())
    }

    async fn set_policy(&self, change: &PolicyChange) -> Result<(), Error> {
        let mut admin = self.admin.lock().await;
        let account = change.account.as_ref().map(|account| {
            AccountId::parse(account.to_string().into()).expect("account names are valid")
        });
        let done = match (&account, change.policy) {
            (Some(account), Policy::Limit(currency, limit)) => {
                policies::set(&mut admin, account, Some((currency, limit)), None).await
            }
            (None, Policy::Limit(currency, limit)) => {
                policies::set_default_limit(&mut admin, currency, limit).await
            }
            (Some(account), Policy::Status(status)) => {
                policies::set(&mut admin, account, None, Some(status)).await
            }
            (None, Policy::Status(_)) => Ok(()),
        };
        done.map_err(|error| Error::Unavailable(error.to_string()))
    }

    async fn mend(&self) -> Result<(), Error> {
        let mut admin = self.admin.lock().await;
        sqlx::raw_sql("insert into public.mended default values")
            .execute(&mut *admin)
            .await?;
        Ok(())
    }

    async fn position(&self, partition: i32) -> Result<Option<Found>, Error> {
        positions::read(&mut *self.admin.lock().await, partition).await
    }

    async fn accept(&self, session: u64, acceptance: Acceptance<'_>) -> Result<(), Error> {
        let accepted = self.connect(session).accept(acceptance).await;
        self.end(session).await?;
        accepted
    }

    fn can_go_back(&self) -> bool {
        false
    }

    fn keep(&self) {}

    fn go_back(&self) {}

    async fn compare(&self, oracle: &Oracle) -> Result<(), String> {
        let mut admin = self.admin.lock().await;
        let (report, verified) = verify(&mut admin, &verify::Options::default(), |_| ()).await;
        verified.map_err(text)?;
        if let Some(finding) = report.findings.first() {
            return Err(format!("verify: {finding:?}"));
        }
        let tables = read(&mut admin).await.map_err(text)?;
        oracle.compare(&tables)
    }
}

fn owner(session: u64) -> String {
    format!("simulated {session}")
}

/// Everything that is stored.
async fn read(connection: &mut PgConnection) -> Result<Tables, sqlx::Error> {
    let mut tables = Tables::default();
    let numbers: Vec<i32> = sqlx::query_scalar("select partition from millrace.positions")
        .fetch_all(&mut *connection)
        .await?;
    for partition in numbers {
        if let Ok(Some(found)) = positions::read(connection, partition).await {
            tables.positions.insert(partition, found.position);
        }
    }
    for row in rows(connection, BATCHES).await? {
        let batch = batch(&row)?;
        tables
            .batches
            .insert((batch.0.partition, batch.0.batch), batch);
    }
    for row in rows(connection, LEDGER).await? {
        let row = ledger(&row)?;
        tables.ledger.insert((row.partition, row.seq), row);
    }
    for row in rows(connection, REFUSED).await? {
        let row = refused(&row)?;
        tables.refused.insert((row.raw.partition, row.raw.seq), row);
    }
    for row in rows(connection, "select * from millrace.parked").await? {
        let row = raw(&row)?;
        tables.parked.insert((row.partition, row.seq), row);
    }
    for row in rows(connection, "select * from millrace.parked_resolutions").await? {
        let row = resolution(&row)?;
        tables
            .resolutions
            .insert((row.partition, row.parked_seq), row);
    }
    for row in rows(connection, BALANCES).await? {
        let account: Rc<str> = row.try_get::<String, _>("account")?.into();
        let key = (account, currency(&row)?, row.try_get("partition")?);
        let slice = Slice {
            debits: number(&row, "debits")?,
            credits: number(&row, "credits")?,
            transactions: row.try_get("transactions")?,
            last_occurred_at: row.try_get("last_occurred_us")?,
        };
        tables.balances.insert(key, slice);
    }
    Ok(tables)
}

const BATCHES: &str = "select *, (extract(epoch from recorded_at) * 1000000)::bigint as recorded_us
    from millrace.batches";
const LEDGER: &str = "select *, (extract(epoch from occurred_at) * 1000000)::bigint as occurred_us
    from millrace.ledger";
const REFUSED: &str = "select *, (extract(epoch from occurred_at) * 1000000)::bigint as occurred_us
    from millrace.refused";
const BALANCES: &str = "select account, currency, partition, debits::text, credits::text, transactions,
    (extract(epoch from last_occurred_at) * 1000000)::bigint as last_occurred_us from millrace.balances";

async fn rows(
    connection: &mut PgConnection,
    query: &'static str,
) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query(query).fetch_all(connection).await
}

fn batch(row: &PgRow) -> Result<(Numbers, Head), sqlx::Error> {
    let numbers = Numbers {
        partition: row.try_get("partition")?,
        batch: row.try_get("batch")?,
        incarnation: row.try_get("incarnation")?,
        from_offset: row.try_get("from_offset")?,
        next_offset: row.try_get("next_offset")?,
        first_seq: row.try_get("first_seq")?,
        next_seq: row.try_get("next_seq")?,
        posted: row.try_get("posted")?,
        duplicate: row.try_get("duplicate")?,
        rejected: row.try_get("rejected")?,
        refused: row.try_get("refused")?,
        parked: row.try_get("parked")?,
        discarded: row.try_get("discarded")?,
        skipped: row.try_get("skipped")?,
        recorded_at: row.try_get("recorded_us")?,
    };
    Ok((numbers, digest(row, "chain_head")?))
}

fn ledger(row: &PgRow) -> Result<LedgerRow, sqlx::Error> {
    Ok(LedgerRow {
        partition: row.try_get("partition")?,
        seq: row.try_get("seq")?,
        log_offset: row.try_get("log_offset")?,
        verdict: row.try_get("verdict")?,
        id: row.try_get::<Uuid, _>("id")?.into_bytes(),
        digest: digest(row, "digest")?,
        debit: row.try_get::<String, _>("debit_account")?.into(),
        credit: row.try_get::<String, _>("credit_account")?.into(),
        currency: currency(row)?,
        amount: row.try_get("amount")?,
        occurred_at: row.try_get("occurred_us")?,
    })
}

fn refused(row: &PgRow) -> Result<RefusedRow, sqlx::Error> {
    Ok(RefusedRow {
        raw: raw(row)?,
        debit_account: row.try_get("debit_account")?,
        credit_account: row.try_get("credit_account")?,
        amount: row.try_get("amount")?,
        currency: row.try_get("currency")?,
        occurred_at: row.try_get("occurred_us")?,
    })
}

fn raw(row: &PgRow) -> Result<RawRow, sqlx::Error> {
    Ok(RawRow {
        partition: row.try_get("partition")?,
        seq: row.try_get("seq")?,
        log_offset: row.try_get("log_offset")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        record_timestamp: row.try_get("record_timestamp")?,
        key: row.try_get("key")?,
        value: row.try_get("value")?,
        headers: row.try_get("headers")?,
        id: row.try_get::<Option<Uuid>, _>("id")?.map(Uuid::into_bytes),
    })
}

fn resolution(row: &PgRow) -> Result<ResolutionRow, sqlx::Error> {
    Ok(ResolutionRow {
        partition: row.try_get("partition")?,
        seq: row.try_get("seq")?,
        parked_seq: row.try_get("parked_seq")?,
        is_discarded: row.try_get::<String, _>("resolution")? == "discarded",
        reason: row.try_get("reason")?,
        operator: row.try_get("operator")?,
    })
}

fn digest(row: &PgRow, column: &str) -> Result<[u8; 32], sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| sqlx::Error::Protocol(format!("{column} is no digest")))
}

fn currency(row: &PgRow) -> Result<&'static str, sqlx::Error> {
    let code: String = row.try_get("currency")?;
    let currency = Currency::parse(&code).map(Currency::code);
    currency.ok_or_else(|| sqlx::Error::Protocol(format!("{code} is no currency")))
}

fn number(row: &PgRow, column: &str) -> Result<i128, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|_| sqlx::Error::Protocol(format!("{column} is {text}")))
}
