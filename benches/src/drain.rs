//! One drain, and what it cost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::PgConnection;

use crate::case::Parameters;
use crate::meter::{Reading, Services};
use crate::record::{Figures, Models, Verdicts};
use crate::run::Bench;
use crate::scratch::Scratch;

/// How often it is asked how far the ledger is: often enough not to blur a drain of a few seconds, and
/// a fraction of a percent of one core.
const POLL: Duration = Duration::from_millis(50);

/// A drain that makes no progress for so long has failed.
const STALL_MAX: Duration = Duration::from_mins(2);

/// Fewer database transactions say little of a rate.
const COMMITS_MIN: i64 = 10;

pub const KIB_PER_MIB: f64 = 1024.0;

/// What was measured around one drain.
pub struct Drain {
    pub start: Reading,
    /// Everything is committed.
    drained: Reading,
    /// The background models are up to date too, where they run.
    folded: Option<Reading>,
    ledger_peak_kib: u64,
    project_peak_kib: u64,
}

/// What the database says of the batches after a moment.
#[derive(sqlx::FromRow)]
pub struct Batches {
    /// Seconds from the first one's decision to the last one's.
    seconds: f64,
    /// Records of the first database transaction.
    first_records: i64,
    /// How many database transactions.
    commits: i64,
}

impl Bench {
    /// Runs the ledger, and the background workers if asked, until everything up to `target` is applied
    /// and folded.
    pub async fn drain(
        &self,
        parameters: &Parameters,
        scratch: &Scratch,
        connection: &mut PgConnection,
        target: u64,
    ) -> anyhow::Result<Drain> {
        let start = self.meter.read(connection, &Services::default()).await?;
        let services = self.start(parameters, scratch)?;
        self.finish(start, services, connection, target).await
    }

    /// Starts what is to drain.
    pub fn start(&self, parameters: &Parameters, scratch: &Scratch) -> anyhow::Result<Services> {
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

    /// Waits until everything up to `target` is applied and folded, and stops the services.
    pub async fn finish(
        &self,
        start: Reading,
        mut services: Services,
        connection: &mut PgConnection,
        target: u64,
    ) -> anyhow::Result<Drain> {
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

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn figures(
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
            // A few batches are taken nearly all with the first: then the whole run is all there is.
            tx_per_s: if batches.commits >= COMMITS_MIN {
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
    pub fn end(&self) -> &Reading {
        self.folded.as_ref().unwrap_or(&self.drained)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn per(count: u64, micros: Option<u64>) -> Option<f64> {
    Some(micros? as f64 / count as f64)
}

/// How many log offsets are applied.
const APPLIED: &str = "select coalesce(sum(position), 0)::bigint from millrace.positions";

/// How many `seq` the read models lack, all models and partitions together.
pub const UNFOLDED: &str = "select coalesce(sum(p.next_seq - coalesce(f.seq, 0)), 0)::bigint
     from millrace.read_models m cross join millrace.positions p
     left join millrace.read_model_positions f on f.model = m.model and f.partition = p.partition";

/// Waits until a number of the database is `target`; fails when it stops moving or a service ends.
pub async fn wait(
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
pub async fn batches_after(
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
