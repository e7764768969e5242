//! `millrace sim`.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use millrace_simulation::many::{OnFailure, Summary, run_all};
use millrace_simulation::postgres::Server;
use millrace_simulation::{Counts, Options, Report, run_in_memory};
use sqlx::postgres::PgConnectOptions;
use tracing::info;

use crate::cli::{Usage, at_least_one, database_url, print};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Flags of `millrace sim`.
#[derive(Debug, Args)]
#[command(
    after_help = "The ledger group's own lanes run on virtual time against a simulated log, while processes are killed, \
frozen and overtaken, commits are lost or answered wrongly, the database fails over, the log is truncated, \
and operators act beside it. Every commit is compared with what must have come of it. The same seed goes \
the same way to the last step.

Exit status: 0 when every seed keeps the promise, 1 with the seed and its last steps.

Examples:
  millrace sim --seed 1 --seeds 10000
  millrace sim --seed 4711 --steps 20000 --last 500
  millrace sim --seeds 20 --store postgres --database-url postgres://postgres@127.0.0.1/postgres"
)]
pub struct Flags {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Steps of each seed before the faults stop and everything must be applied.
    #[arg(long, default_value_t = 3_000)]
    steps: u64,
    /// Threads [default: one per core]; over Postgres one.
    #[arg(long, value_parser = at_least_one)]
    jobs: Option<NonZeroUsize>,
    /// What the lanes write to: a database in memory, or the ledger's own statements on a real server, in
    /// databases that are made for this and dropped.
    #[arg(long, value_enum, default_value = "memory")]
    store: Kind,
    /// A Postgres where databases may be created, for --store postgres.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = database_url)]
    database_url: Option<PgConnectOptions>,
    /// How many of the last steps a failure shows.
    #[arg(long, default_value_t = 60)]
    last: usize,
    /// Run all seeds, also after one has failed.
    #[arg(long)]
    keep_going: bool,
    /// Plant a deliberate bug in the ledger, to see it caught; in builds with the feature planted-bugs only.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

/// What the lanes write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A database in memory.
    Memory,
    /// A real one; without failovers.
    Postgres,
}

/// Simulates.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let plant = planting(flags.plant.as_deref())?;
    let end = flags.seed.checked_add(flags.seeds);
    let end = end.ok_or_else(|| Usage(format!("--seed {} is too large", flags.seed)))?;
    if flags.store == Kind::Postgres {
        return over_postgres(&flags, end, plant).await;
    }
    let jobs = flags
        .jobs
        .or_else(|| available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let work = move || {
        let start = Instant::now();
        let options = Options {
            steps: flags.steps,
            shown: flags.last,
        };
        let shown = Mutex::new(start);
        let on_failure = if flags.keep_going {
            OnFailure::GoOn
        } else {
            OnFailure::Stop
        };
        let run = |seed| {
            plant();
            run_in_memory(seed, options)
        };
        let progress = |summary: &Summary| {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.elapsed() >= PROGRESS_INTERVAL {
                *shown = Instant::now();
                tell_progress(summary, flags.seeds);
            }
        };
        let summary = run_all(flags.seed..end, jobs, on_failure, run, progress);
        (summary, start.elapsed())
    };
    let (summary, elapsed) = tokio::task::spawn_blocking(work)
        .await
        .context("simulating")?;
    tell(&summary, elapsed);
    Ok(exit_code(&summary))
}

/// One seed after the other, on this thread.
async fn over_postgres(flags: &Flags, end: u64, plant: impl Fn()) -> anyhow::Result<ExitCode> {
    let database_url = flags.database_url.as_ref();
    let database_url =
        database_url.ok_or_else(|| Usage("--store postgres needs --database-url".into()))?;
    let start = Instant::now();
    let mut shown = start;
    let options = Options {
        steps: flags.steps,
        shown: flags.last,
    };
    plant();
    let server = Server::prepare(database_url)
        .await
        .map_err(anyhow::Error::msg)?;
    let mut summary = Summary::default();
    for seed in flags.seed..end {
        summary.add(
            server
                .run(seed, options)
                .await
                .map_err(anyhow::Error::msg)?,
        );
        if !summary.failures.is_empty() && !flags.keep_going {
            break;
        }
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            tell_progress(&summary, flags.seeds);
        }
    }
    server.tidy().await.map_err(anyhow::Error::msg)?;
    tell(&summary, start.elapsed());
    Ok(exit_code(&summary))
}

fn exit_code(summary: &Summary) -> ExitCode {
    if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plants the bug in the thread that calls what is given back.
#[cfg(feature = "planted-bugs")]
fn planting(name: Option<&str>) -> Result<impl Fn() + Sync + use<>, Usage> {
    use millrace_ledger::planted::{Bug, plant};
    let bug = name
        .map(|name| {
            let known = Bug::ALL.iter().copied();
            let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>();
            known
                .into_iter()
                .find(|bug| bug.name() == name)
                .ok_or_else(|| Usage(format!("--plant {name}: one of {}", names().join(", "))))
        })
        .transpose()?;
    Ok(move || plant(bug))
}

#[cfg(not(feature = "planted-bugs"))]
fn planting(name: Option<&str>) -> Result<impl Fn() + Sync + use<>, Usage> {
    match name {
        None => Ok(|| ()),
        Some(name) => Err(Usage(format!(
            "--plant {name} needs a build with deliberate bugs: cargo run -p millrace --features planted-bugs -- sim .."
        ))),
    }
}

fn tell_progress(summary: &Summary, seeds: u64) {
    let Counts {
        steps,
        batches,
        crashes,
        rebalances,
        zombie_writes,
        ..
    } = summary.counts;
    info!(
        done = summary.runs,
        seeds,
        failures = summary.failures.len(),
        first_failed = summary.failures.first().map(|report| report.seed),
        steps,
        batches,
        crashes,
        rebalances,
        zombie_writes,
        "simulating"
    );
}

fn tell(summary: &Summary, elapsed: Duration) {
    for report in &summary.failures {
        tell_failure(report);
    }
    let Summary { runs, counts, .. } = summary;
    let seconds = elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let per_second = *runs as f64 / seconds.max(1e-9);
    print(&format!(
        "{runs} seeds in {seconds:.1} s ({per_second:.0}/s), {} failed; {} steps, {} hours of virtual time, \
         trace {:016x}",
        summary.failures.len(),
        counts.steps,
        counts.micros / 3_600_000_000,
        summary.trace_hash
    ));
    print(&format!(
        "{} records, {} verdicts, {} batches; {} crashes, {} rebalances, {} zombie writes, {} commits by \
         an owner of before that came first, {} frozen owners ended, {} gaps accepted, {} policies set, {} parked records resolved",
        counts.records,
        counts.applied,
        counts.batches,
        counts.crashes,
        counts.rebalances,
        counts.zombie_writes,
        counts.zombie_commits,
        counts.frozen_ended,
        counts.accepted,
        counts.policies,
        counts.resolved
    ));
    print(&format!(
        "{} faults: {}",
        counts.faults.total(),
        counts.faults
    ));
}

fn tell_failure(report: &Report) {
    let Some(failure) = &report.failure else {
        return;
    };
    for step in &failure.last {
        print(step);
    }
    print(&format!("FAILED seed {}: {}", report.seed, failure.why));
}
