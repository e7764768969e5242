//! One run, from an empty database to checked figures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::PgConnection;

use crate::case::{Case, Parameters};
use crate::checks;
use crate::cli::Cli;
use crate::conditions::Conditions;
use crate::load::Load;
use crate::meter::{Meter, Reading, Services};
use crate::programs::Millrace;
use crate::record::{Figures, Models, Record, Verdicts};
use crate::scratch::{Scratch, Servers};

/// How often it is asked how far the ledger is: often enough not to blur a drain of a few seconds, and
/// a fraction of a percent of one core.
const POLL: Duration = Duration::from_millis(50);

/// A drain that makes no progress for so long has failed.
const STALL_MAX: Duration = Duration::from_mins(2);

const KIB_PER_MIB: f64 = 1024.0;

/// What all runs share.
#[derive(Debug)]
pub struct Bench {
    servers: Servers,
    millrace: Millrace,
    meter: Meter,
    conditions: Conditions,
}

/// What was measured around one drain.
struct Drain {
    start: Reading,
    /// Everything is committed.
    drained: Reading,
    /// The background models are up to date too, where they run.
    folded: Option<Reading>,
    ledger_peak_kib: u64,
    project_peak_kib: u64,
}

/// What the database says of the batches after a moment.
#[derive(sqlx::FromRow)]
struct Batches {
    /// Seconds from the first one's decision to the last one's.
    seconds: f64,
    /// Records of the first database transaction.
    first_records: i64,
    /// How many database transactions.
    commits: i64,
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

    /// Prepares, drains, checks.
    pub async fn run(&self, case: &Case, scratch: &Scratch) -> anyhow::Result<Record> {
        let parameters = &case.parameters;
        let load = Load::new(parameters)?;
        let mut connection = self.prepare(parameters, &load, scratch).await?;
        let before = checks::verdicts(&mut connection).await?;
        let last_before: Option<String> =
            sqlx::query_scalar("select max(recorded_at)::text from millrace.batches")
                .fetch_one(&mut connection)
                .await?;

        load.publish_measured(&self.millrace, &scratch.environment())?;
        checkpoint(&mut connection).await?;
        let target = load.before() + parameters.count;
        let drain = self
            .drain(parameters, scratch, &mut connection, target)
            .await?;
        checkpoint(&mut connection).await?;
        let settled = self
            .meter
            .read(&mut connection, &Services::default())
            .await?;

        let batches = batches_after(&mut connection, last_before.as_deref()).await?;
        let verdicts = checks::verdicts(&mut connection).await?.since(&before);
        let figures = Figures {
            rows_before: before.posted + before.rejected,
            checkpoint_us: per(parameters.count, settled.postgres_since(drain.end())),
            ..self.figures(parameters, &drain, &batches, verdicts)
        };
        let mut failures = checks::failures(&mut connection, parameters, &load).await?;
        let verified = self.tool(&["verify"], scratch);
        failures.extend(verified.err().map(|failure| format!("{failure:#}")));
        let at = sqlx::query_scalar(
            "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(Record {
            at,
            case: case.clone(),
            figures,
            failures,
            conditions: self.conditions.clone(),
        })
    }

    /// Database, topic and policies; then what is to be there before, published and drained.
    async fn prepare(
        &self,
        parameters: &Parameters,
        load: &Load,
        scratch: &Scratch,
    ) -> anyhow::Result<PgConnection> {
        self.tool(&["migrate"], scratch)?;
        let partitions = parameters.partitions.to_string();
        self.tool(&["topics", "create", "--partitions", &partitions], scratch)?;
        if let Some(limit) = parameters.limit {
            let limit = limit.to_string();
            self.tool(
                &["accounts", "default", "--overdraft-limit", &limit],
                scratch,
            )?;
        }
        let mut connection = scratch.connect().await?;
        if load.before() > 0 {
            let environment = scratch.environment();
            load.publish_before(&scratch.publisher(), &self.millrace, &environment)
                .await?;
            self.drain(parameters, scratch, &mut connection, load.before())
                .await?;
        }
        Ok(connection)
    }

    /// Runs the ledger, and the background workers if asked, until everything up to `target` is applied
    /// and folded.
    async fn drain(
        &self,
        parameters: &Parameters,
        scratch: &Scratch,
        connection: &mut PgConnection,
        target: u64,
    ) -> anyhow::Result<Drain> {
        let start = self.meter.read(connection, &Services::default()).await?;
        let mut services = self.start(parameters, scratch)?;
        wait(connection, &mut services, APPLIED, i64::try_from(target)?).await?;
        let drained = self.meter.read(connection, &services).await?;
        let ledger_peak_kib = services.ledger_peak_kib()?;
        for ledger in services.ledgers.drain(..) {
            ledger.stop().await?;
        }
        let mut drain = Drain {
            start,
            drained,
            folded: None,
            ledger_peak_kib,
            project_peak_kib: 0,
        };
        if services.project.is_some() {
            wait(connection, &mut services, UNFOLDED, 0).await?;
            drain.folded = Some(self.meter.read(connection, &services).await?);
            drain.project_peak_kib = services.project_peak_kib()?;
        }
        if let Some(project) = services.project.take() {
            project.stop().await?;
        }
        Ok(drain)
    }

    fn start(&self, parameters: &Parameters, scratch: &Scratch) -> anyhow::Result<Services> {
        let environment = scratch.environment();
        let start = |name: &str, arguments: &[&str]| {
            let name = format!("{}-{name}", scratch.name);
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            self.millrace.start(&name, &arguments, &environment)
        };
        let lanes = parameters.lanes.to_string();
        let ledgers = (1..=parameters.replicas)
            .map(|replica| start(&format!("ledger-{replica}"), &["ledger", "--lanes", &lanes]))
            .collect::<anyhow::Result<_>>()?;
        let project = parameters
            .project
            .then(|| start("project", &["project"]))
            .transpose()?;
        Ok(Services { ledgers, project })
    }

    fn tool(&self, arguments: &[&str], scratch: &Scratch) -> anyhow::Result<()> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.millrace.run(&arguments, &scratch.environment())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn figures(
        &self,
        parameters: &Parameters,
        drain: &Drain,
        batches: &Batches,
        verdicts: Verdicts,
    ) -> Figures {
        let Drain { start, drained, .. } = drain;
        let end = drain.end();
        let count = parameters.count;
        let after_first = count as f64 - batches.first_records as f64;
        let cpu = |micros: u64| micros as f64 / count as f64;
        Figures {
            // A single batch has no duration: then the whole run is all there is.
            tx_per_s: if batches.seconds > 0.0 {
                after_first / batches.seconds
            } else {
                count as f64 / drained.seconds_since(start)
            },
            drain_s: batches.seconds,
            wall_s: drained.seconds_since(start),
            ledger_us: cpu(drained.ledgers.iter().sum()),
            ledger_each_us: drained.ledgers.iter().copied().map(cpu).collect(),
            ledger_peak_mib: drain.ledger_peak_kib as f64 / KIB_PER_MIB,
            postgres_us: per(count, end.postgres_since(start)),
            postgres_ledger_us: per(count, drained.postgres_ledger),
            checkpoint_us: None,
            kafka_us: per(count, end.kafka_since(start)),
            wal_bytes: (end.wal_bytes - start.wal_bytes) as f64 / count as f64,
            others_percent: drained.others_percent_since(start, self.conditions.cores),
            per_commit: count as f64 / batches.commits as f64,
            rows_before: 0,
            verdicts,
            models: drain.folded.as_ref().map(|folded| Models {
                tx_per_s: after_first / (batches.seconds + folded.seconds_since(drained)),
                behind_s: folded.seconds_since(drained),
                project_us: cpu(folded.project),
                project_peak_mib: drain.project_peak_kib as f64 / KIB_PER_MIB,
                postgres_project_us: per(count, folded.postgres_project),
                postgres_drained_us: per(count, drained.postgres_since(start)),
            }),
        }
    }
}

impl Drain {
    fn end(&self) -> &Reading {
        self.folded.as_ref().unwrap_or(&self.drained)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per(count: u64, micros: Option<u64>) -> Option<f64> {
    Some(micros? as f64 / count as f64)
}

/// So that every run begins with the same pages to write: none.
async fn checkpoint(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql("checkpoint").execute(connection).await?;
    Ok(())
}

/// How many log offsets are applied.
const APPLIED: &str = "select coalesce(sum(position), 0)::bigint from millrace.positions";

/// How many `seq` the read models lack, all models and partitions together.
const UNFOLDED: &str = "select coalesce(sum(p.next_seq - coalesce(f.seq, 0)), 0)::bigint
     from millrace.read_models m cross join millrace.positions p
     left join millrace.read_model_positions f on f.model = m.model and f.partition = p.partition";

/// Waits until a number of the database is `target`; fails when it stops moving or a service ends.
async fn wait(
    connection: &mut PgConnection,
    services: &mut Services,
    number: &'static str,
    target: i64,
) -> anyhow::Result<()> {
    let mut last = None;
    let mut moved = Instant::now();
    loop {
        let found: i64 = sqlx::query_scalar(number)
            .fetch_one(&mut *connection)
            .await?;
        if found == target {
            return Ok(());
        }
        services.check()?;
        if last != Some(found) {
            last = Some(found);
            moved = Instant::now();
        } else if moved.elapsed() > STALL_MAX {
            bail!("no progress for {STALL_MAX:?}: at {found} of {target}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The batches decided after a moment; all of them without one.
async fn batches_after(
    connection: &mut PgConnection,
    last_before: Option<&str>,
) -> anyhow::Result<Batches> {
    let batches = sqlx::query_as(
        "with b as (
             select recorded_at, posted + duplicate + rejected + refused + parked as records,
                 recorded_at = min(recorded_at) over () as is_first
             from millrace.batches
             where recorded_at > coalesce($1::timestamptz, '-infinity')
         )
         select extract(epoch from max(recorded_at) - min(recorded_at))::float8 as seconds,
             coalesce(sum(records) filter (where is_first), 0)::bigint as first_records,
             count(distinct recorded_at) as commits
         from b",
    );
    batches
        .bind(last_before)
        .fetch_one(connection)
        .await
        .context("reading the batches")
}
