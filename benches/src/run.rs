//! One run, from an empty database to checked figures.

use anyhow::Context as _;
use millrace_benches::results::say;
use millrace_generator::Workload;
use sqlx::PgConnection;

use crate::case::{Case, Parameters};
use crate::checks;
use crate::cli::Cli;
use crate::conditions::Conditions;
use crate::drain::{batches_after, per};
use crate::load::{Load, generate};
use crate::meter::{Meter, Services};
use crate::programs::Millrace;
use crate::record::{Figures, Kept, Record};
use crate::scratch::{Scratch, Servers};
use crate::suites::Plan;

/// What all runs share.
#[derive(Debug)]
pub struct Bench {
    servers: Servers,
    pub millrace: Millrace,
    pub meter: Meter,
    pub conditions: Conditions,
}

impl Bench {
    /// Finds the binary and the servers.
    pub async fn new(cli: &Cli) -> anyhow::Result<Self> {
        let database = cli.database_url.as_deref().unwrap_or_default();
        let servers = Servers {
            brokers: cli.brokers.clone().unwrap_or_default(),
            database: database.parse().context("DATABASE_URL")?,
        };
        let millrace = Millrace::find(cli.millrace.as_deref())?;
        let meter = Meter::new(&servers).await?;
        let mut connection = servers.connect().await?;
        let conditions =
            Conditions::read(&mut connection, &meter, &millrace, &servers.brokers).await?;
        Ok(Self {
            servers,
            millrace,
            meter,
            conditions,
        })
    }

    /// A database and a topic for one run.
    pub async fn scratch(&self, place: usize) -> anyhow::Result<Scratch> {
        let name = format!("millrace_bench_{}_{place}", std::process::id());
        Scratch::create(&self.servers, name).await
    }

    /// Does what is planned. Gives what is to be kept of it.
    pub async fn run(&self, plan: &Plan, scratch: &Scratch) -> anyhow::Result<Vec<Kept>> {
        let drains = match plan {
            Plan::Drain(case) => self.grow(std::slice::from_ref(case), scratch).await?,
            Plan::Grow(cases) => self.grow(cases, scratch).await?,
            Plan::Rebuild(case) => return Ok(vec![self.rebuild(case, scratch).await?.into()]),
        };
        Ok(drains.into_iter().map(Kept::from).collect())
    }

    /// Measures one drain after the other in one ledger, checks after each, and verifies all at the end.
    async fn grow(&self, cases: &[Case], scratch: &Scratch) -> anyhow::Result<Vec<Record>> {
        let first = cases.first().context("nothing to measure")?;
        let mut load = Load::new(&first.parameters)?;
        let mut connection = self.open(&first.parameters, &load, scratch).await?;
        let mut records = Vec::with_capacity(cases.len());
        for case in cases {
            let existing = load.grow(&case.parameters)?;
            self.fill(&existing, load.before(), &case.parameters, scratch)
                .await?;
            let record = self.measure(case, &load, scratch, &mut connection).await?;
            if cases.len() > 1 {
                say(&format!("{} is measured", case.name));
            }
            records.push(record);
        }
        let verified = self.tool(&["verify"], scratch).await;
        if let Err(failure) = verified {
            for record in &mut records {
                record.failures.push(format!("{failure:#}"));
            }
        }
        Ok(records)
    }

    /// Publishes what is to be measured, drains it, checks.
    async fn measure(
        &self,
        case: &Case,
        load: &Load,
        scratch: &Scratch,
        connection: &mut PgConnection,
    ) -> anyhow::Result<Record> {
        let parameters = &case.parameters;
        let before = checks::verdicts(connection).await?;
        let last_before: Option<String> =
            sqlx::query_scalar("select max(recorded_at)::text from millrace.batches")
                .fetch_one(&mut *connection)
                .await?;
        generate(
            &parameters.measured(),
            &self.millrace,
            &scratch.environment(),
        )
        .await?;
        checkpoint(connection).await?;
        let drain = self
            .drain(parameters, scratch, connection, load.count())
            .await?;
        checkpoint(connection).await?;
        let settled = self.meter.read(connection, &Services::default()).await?;

        let batches = batches_after(connection, last_before.as_deref()).await?;
        let verdicts = checks::verdicts(connection).await?.since(&before);
        let figures = Figures {
            rows_before: before.posted + before.rejected,
            checkpoint_us: per(parameters.count, settled.postgres_since(drain.end())),
            ..self.figures(parameters, &drain, &batches, verdicts)
        };
        Ok(Record {
            at: now(connection).await?,
            case: case.clone(),
            figures,
            failures: checks::failures(connection, parameters, load).await?,
            conditions: self.conditions.clone(),
        })
    }

    /// Database, topic and policies; opening deposits are published.
    pub async fn open(
        &self,
        parameters: &Parameters,
        load: &Load,
        scratch: &Scratch,
    ) -> anyhow::Result<PgConnection> {
        self.tool(&["migrate"], scratch).await?;
        let partitions = parameters.partitions.to_string();
        self.tool(&["topics", "create", "--partitions", &partitions], scratch)
            .await?;
        if let Some(limit) = parameters.limit {
            let limit = limit.to_string();
            self.tool(
                &["accounts", "default", "--overdraft-limit", &limit],
                scratch,
            )
            .await?;
        }
        load.publish_deposits(&scratch.publisher()).await?;
        scratch.connect().await
    }

    /// Publishes a workload while the ledger drains it and whatever else waits, up to `target`.
    pub async fn fill(
        &self,
        workload: &Workload,
        target: u64,
        parameters: &Parameters,
        scratch: &Scratch,
    ) -> anyhow::Result<()> {
        if target == 0 {
            return Ok(());
        }
        let mut connection = scratch.connect().await?;
        let start = self
            .meter
            .read(&mut connection, &Services::default())
            .await?;
        let services = self.start(parameters, scratch)?;
        if workload.count > 0 {
            generate(workload, &self.millrace, &scratch.environment()).await?;
        }
        self.finish(start, services, &mut connection, target)
            .await?;
        Ok(())
    }

    /// Runs a command of `millrace` that ends.
    pub async fn tool(&self, arguments: &[&str], scratch: &Scratch) -> anyhow::Result<()> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.millrace.run(&arguments, &scratch.environment()).await
    }
}

/// The database's clock, UTC.
pub async fn now(connection: &mut PgConnection) -> anyhow::Result<String> {
    let now = sqlx::query_scalar(
        "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    Ok(now.fetch_one(connection).await?)
}

/// So that every run begins with the same pages to write: none.
pub async fn checkpoint(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql("checkpoint").execute(connection).await?;
    Ok(())
}
