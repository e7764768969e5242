//! All windows on one ledger, from an empty database to the proof.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use millrace_benches::conditions::{self, Conditions};
use millrace_benches::latency::Latency;
use millrace_benches::meter::{Meter, Services as NoServices};
use millrace_benches::processes;
use millrace_benches::programs::Millrace;
use millrace_benches::results::say;
use millrace_benches::scratch::{Scratch, Servers};
use millrace_benches::services::{Environment, Services};
use millrace_benches::signals::Signals;
use sqlx::PgConnection;

use crate::cli::{Cli, Settings};
use crate::endpoint::{Endpoint, Keys};
use crate::ingest::{self, Source};
use crate::readers::{Measured, Readers};
use crate::record::{Figures, Record};

/// Readers are at work for so long before a window: connections are open and caches warm.
const WARMUP: Duration = Duration::from_secs(2);

/// The name under which the query service's connections are known to Postgres.
const QUERY_BACKENDS: &str = "millrace query";

/// Everything between the windows.
struct Run<'a> {
    millrace: &'a Millrace,
    settings: &'a Settings,
    environment: &'a Environment,
    connection: PgConnection,
    conditions: Conditions,
    /// Whether Postgres' processes can be seen.
    sees_postgres: bool,
    source: Source<'a>,
    query: SocketAddr,
    /// The query service.
    serving: Services<'a>,
    name: &'a str,
}

/// A reading of everything that is counted per request or transaction; CPU in microseconds.
struct Reading {
    at: Instant,
    query: u64,
    backends: Option<u64>,
    ledger: u64,
}

/// Starts everything, measures, checks, and removes everything; none when a signal ended it.
pub async fn run(cli: &Cli, signals: &mut Signals) -> anyhow::Result<Option<Vec<Record>>> {
    let database_url = cli.database_url.as_deref().context("no database URL")?;
    let servers = Servers {
        brokers: cli.brokers.clone().context("no brokers")?,
        database: database_url.parse().context("the database URL")?,
    };
    let millrace = Millrace::find(cli.millrace.as_deref())?;
    let name = format!("millrace_query_{}", std::process::id());
    let scratch = Scratch::create(&servers, name).await?;
    let outcome = tokio::select! {
        outcome = measure(cli, &millrace, &servers, &scratch) => Some(outcome),
        () = signals.received() => None,
    };
    scratch.remove().await?;
    outcome.transpose()
}

async fn measure(
    cli: &Cli,
    millrace: &Millrace,
    servers: &Servers,
    scratch: &Scratch,
) -> anyhow::Result<Vec<Record>> {
    let environment = scratch.environment();
    let partitions = cli.settings.partitions.to_string();
    for tool in [
        &["migrate"][..],
        &["topics", "create", "--partitions", &partitions],
    ] {
        let arguments: Vec<_> = tool.iter().map(ToString::to_string).collect();
        millrace.run(&arguments, &environment).await?;
    }
    let mut connection = scratch.connect().await?;
    let meter = Meter::new(servers).await?;
    let conditions = Conditions::read(&mut connection, &meter, millrace, &servers.brokers).await?;
    let seen = meter.read(&mut connection, &NoServices::default()).await?;
    let mut serving = Services::new(millrace, &scratch.name);
    let query = serving.serve("query", &environment).await?;
    let run = Run {
        millrace,
        settings: &cli.settings,
        environment: &environment,
        connection,
        conditions,
        sees_postgres: seen.postgres.is_some(),
        source: Source::new(millrace, &environment, &cli.settings),
        query,
        serving,
        name: &scratch.name,
    };
    run.all(cli.endpoints()).await
}

impl<'a> Run<'a> {
    /// Every window, then the proof.
    async fn all(mut self, endpoints: &[Endpoint]) -> anyhow::Result<Vec<Record>> {
        say(&format!(
            "filling a ledger: {} transactions",
            self.settings.preload
        ));
        self.source.preload(self.settings.preload).await?;
        self.drain().await?;
        let keys = Arc::new(Keys::draw(&mut self.connection).await?);
        let mut records = vec![self.ingest(None, &keys).await?];
        for endpoint in endpoints {
            records.push(self.idle(*endpoint, &keys).await?);
            records.push(self.ingest(Some(*endpoint), &keys).await?);
        }
        records.push(self.ingest(None, &keys).await?);
        self.serving.check()?;
        self.serving.stop().await?;
        say("verify");
        let verified = self
            .millrace
            .run(&["verify".into()], self.environment)
            .await;
        if let Err(failure) = verified {
            for record in &mut records {
                record.failures.push(format!("{failure:#}"));
            }
        }
        Ok(records)
    }

    /// Readers without ingest.
    async fn idle(&mut self, endpoint: Endpoint, keys: &Arc<Keys>) -> anyhow::Result<Record> {
        say(&format!("{endpoint}, without ingest"));
        let readers = self.readers(endpoint, keys).await?;
        tokio::time::sleep(WARMUP).await;
        let before = self.read(None).await?;
        readers.take();
        tokio::time::sleep(Duration::from_secs(self.settings.seconds.into())).await;
        let measured = readers.take();
        let after = self.read(None).await?;
        readers.stop().await?;
        let figures = self.figures(measured, &before, &after);
        self.record(Some(endpoint), figures).await
    }

    /// A full drain, with readers or without. The window is from the first batch to the last.
    async fn ingest(
        &mut self,
        endpoint: Option<Endpoint>,
        keys: &Arc<Keys>,
    ) -> anyhow::Result<Record> {
        let what = endpoint.map_or("nobody reads".into(), |e| e.to_string());
        say(&format!(
            "{what}, {} transactions ingested",
            self.settings.count
        ));
        let there = self.source.published;
        self.source.publish(self.settings.count).await?;
        // So that every drain begins with the same pages to write: none.
        sqlx::raw_sql("checkpoint")
            .execute(&mut self.connection)
            .await?;
        let readers = match endpoint {
            Some(endpoint) => Some(self.readers(endpoint, keys).await?),
            None => None,
        };
        let mut ledger = self.start_ledger()?;
        let begun = ingest::applied(&mut self.connection, &mut ledger, there + 1).await?;
        let before = self.read(Some(&ledger)).await?;
        readers.as_ref().map(Readers::take);
        let target = self.source.published;
        let drained = ingest::applied(&mut self.connection, &mut ledger, target).await?;
        let measured = readers.as_ref().map_or_else(Measured::none, Readers::take);
        let after = self.read(Some(&ledger)).await?;
        if let Some(readers) = readers {
            readers.stop().await?;
        }
        ledger.stop().await?;
        let figures = Figures {
            rows_before: there,
            ingest_per_s: Some(drained.rate_since(&begun)),
            ledger_us: per(after.ledger - before.ledger, drained.count_since(&begun)),
            ..self.figures(measured, &before, &after)
        };
        self.record(endpoint, figures).await
    }

    async fn readers(&self, endpoint: Endpoint, keys: &Arc<Keys>) -> anyhow::Result<Readers> {
        Readers::start(self.query, self.settings.connections, endpoint, keys).await
    }

    fn start_ledger(&self) -> anyhow::Result<Services<'a>> {
        let mut ledger = Services::new(self.millrace, self.name);
        let lanes = self.settings.lanes.to_string();
        ledger.start("ledger", &["--lanes", &lanes], self.environment)?;
        Ok(ledger)
    }

    /// Applies everything that is published.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let mut ledger = self.start_ledger()?;
        let target = self.source.published;
        ingest::applied(&mut self.connection, &mut ledger, target).await?;
        ledger.stop().await
    }

    async fn read(&mut self, ledger: Option<&Services<'_>>) -> anyhow::Result<Reading> {
        let query = "select pid from pg_stat_activity
             where datname = current_database() and application_name = $1";
        let pids: Vec<i32> = sqlx::query_scalar(query)
            .bind(QUERY_BACKENDS)
            .fetch_all(&mut self.connection)
            .await?;
        let backend = |pid: &i32| processes::cpu(u32::try_from(*pid).ok()?).ok();
        let sum = |all: Vec<(_, u64)>| all.iter().map(|(_, micros)| micros).sum();
        Ok(Reading {
            at: Instant::now(),
            query: sum(self.serving.cpu()?),
            backends: self
                .sees_postgres
                .then(|| pids.iter().filter_map(backend).sum()),
            ledger: ledger.map(Services::cpu).transpose()?.map_or(0, sum),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn figures(&self, measured: Measured, before: &Reading, after: &Reading) -> Figures {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let requests = measured.latency.len();
        let backends = after.backends.zip(before.backends);
        let backends = backends.map(|(after, before)| after.saturating_sub(before));
        Figures {
            rows_before: self.source.published,
            seconds,
            requests_per_s: requests as f64 / seconds,
            latency: Latency::of(&measured.latency),
            errors: measured.errors,
            first_error: measured.first_error,
            query_us: per(after.query - before.query, requests),
            postgres_us: backends.and_then(|micros| per(micros, requests)),
            ingest_per_s: None,
            ledger_us: None,
        }
    }

    async fn record(
        &mut self,
        endpoint: Option<Endpoint>,
        figures: Figures,
    ) -> anyhow::Result<Record> {
        let mut failures = Vec::new();
        if let Some(error) = &figures.first_error {
            failures.push(format!("{} errors, the first: {error}", figures.errors));
        }
        let record = Record {
            at: conditions::clock(&mut self.connection).await?,
            endpoint,
            settings: self.settings.clone(),
            figures,
            failures,
            conditions: self.conditions.clone(),
        };
        say(&record.summary());
        Ok(record)
    }
}

/// None of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per(micros: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| micros as f64 / count as f64)
}
