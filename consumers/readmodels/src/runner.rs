//! The background workers: each has one connection, takes the first lot of partitions that nobody
//! else has in hand, folds it in one database transaction, and looks again.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::fold::{Range, count, fold_and_advance, seqs};
use crate::model::{Model, all};
use crate::plan::{Claim, FOLD_SEQS_MAX, Haste, Planner};
use crate::positions::{self, Lag};
use crate::status::{Database, Status};

/// How long a worker waits when there is nothing to fold: a fraction of the pace at which background
/// models are folded, for one cheap statement.
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// The first wait after the database was lost, and the longest; it doubles in between.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Connecting, and reading the positions, take no longer on a database that works.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A fold takes a few seconds; Postgres ends it after five minutes (see [`SETTINGS`]), the worker soon
/// after.
const FOLD_TIMEOUT: Duration = Duration::from_secs(310);

/// The settings of a worker's connection.
const SETTINGS: [(&str, &str); 9] = [
    ("search_path", "millrace"),
    // Compiling costs more than any fold gains by it.
    ("jit", "off"),
    // Measured: hashing and sorting in more memory is slower, because it leaves the caches.
    ("work_mem", "4MB"),
    // A commit lost in a crash takes its position with it and is folded again.
    ("synchronous_commit", "off"),
    ("statement_timeout", "300s"),
    // A worker that is frozen between statements must not keep its partitions.
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// What [`run`] needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database. `search_path` and the like are set by the workers.
    pub database: PgConnectOptions,
    /// How many workers, with a connection each.
    pub workers: NonZeroUsize,
}

/// Folds what lags until `shutdown`; a fold in hand is finished first. The database may be away at any
/// time. `status` is renewed with every look at the positions.
pub async fn run(options: Options, status: watch::Sender<Status>, shutdown: CancellationToken) {
    let mut workers = JoinSet::new();
    for number in 1..=options.workers.get() {
        let worker = Worker {
            database: options
                .database
                .clone()
                .application_name(&format!("millrace project {number}"))
                .options(SETTINGS),
            models: all(),
            status: status.clone(),
            shutdown: shutdown.clone(),
        };
        workers.spawn(worker.run());
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(failure) = ended
            && failure.is_panic()
        {
            std::panic::resume_unwind(failure.into_panic());
        }
    }
}

struct Worker {
    database: PgConnectOptions,
    models: &'static [Model],
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
}

impl Worker {
    /// Works on one connection after the other.
    async fn run(self) {
        let mut failures = 0;
        while let Err(error) = self.session(&mut failures).await {
            if failures == 0 {
                tracing::warn!(%error, "read models are not folded: the database cannot be used");
            }
            // Not inside the call: the borrow would still be held when the status is sent.
            let models = self.status.borrow().models.clone();
            self.publish(Status {
                database: Database::Away(error.to_string()),
                models,
            });
            let wait = retry_wait(failures, rand::random_range(0.5..1.0));
            failures += 1;
            if self
                .shutdown
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Works until shutdown, or until the connection is of no use any more.
    async fn session(&self, failures: &mut u32) -> Result<(), Error> {
        let opening = within(LOOK_TIMEOUT, self.open());
        let Some(opened) = self.shutdown.run_until_cancelled(opening).await else {
            return Ok(());
        };
        let mut connection = opened?;
        let mut planner = Planner::default();
        while !self.shutdown.is_cancelled() {
            let lags = within(LOOK_TIMEOUT, self.look(&mut connection)).await?;
            self.publish(Status::of(self.models, &lags));
            let claims = planner.claims(self.models, &lags);
            let rest = self.fold_first(&mut connection, claims).await?;
            if std::mem::take(failures) > 0 {
                tracing::info!("read models are folded again");
            }
            let rest = tokio::time::sleep(rest);
            self.shutdown.run_until_cancelled(rest).await;
        }
        // The work is done: whether the server hears the good-bye changes nothing.
        let _ = tokio::time::timeout(LOOK_TIMEOUT, connection.close()).await;
        Ok(())
    }

    async fn open(&self) -> Result<PgConnection, Error> {
        let mut connection = self.database.connect().await?;
        // As the writer, where the user may: a fold needs no more.
        sqlx::query(
            "select set_config('role', rolname, false) from pg_roles
             where rolname = 'millrace_writer' and pg_has_role(rolname, 'member')",
        )
        .execute(&mut connection)
        .await?;
        // A fold is planned once for the life of the connection: a scan of a ledger that was empty then
        // would stay one. It is too short to be worth compiling.
        sqlx::raw_sql("set enable_seqscan = off; set jit = off")
            .execute(&mut connection)
            .await?;
        let is_there: bool =
            sqlx::query_scalar("select to_regclass('millrace.read_models') is not null")
                .fetch_one(&mut connection)
                .await?;
        if !is_there {
            let why = "the database has no tables of Millrace; run: millrace migrate";
            return Err(Error::Broken(why.into()));
        }
        let installed = positions::installed(&mut connection, &names(self.models)).await?;
        match self
            .models
            .iter()
            .find(|model| !installed.iter().any(|name| name == model.name))
        {
            None => Ok(connection),
            Some(missing) => Err(Error::Broken(format!(
                "read model {} is not installed; run: millrace migrate",
                missing.name
            ))),
        }
    }

    /// Reads how far everything is; partitions that are new get their rows.
    async fn look(&self, connection: &mut PgConnection) -> Result<Vec<Lag>, Error> {
        let lags = positions::survey(connection, &names(self.models)).await?;
        for model in self.models {
            let new: Vec<_> = lags
                .iter()
                .filter(|lag| lag.is_new && lag.model == model.name)
                .map(|lag| lag.partition)
                .collect();
            if !new.is_empty() {
                positions::create(connection, model, &new).await?;
            }
        }
        Ok(lags)
    }

    /// Folds the first claim that is not in other hands. Gives how long to rest before the next: as long as a fold of
    /// what comes in steadily took, so that a worker takes half of a processor at most and the ledger has the rest.
    async fn fold_first(
        &self,
        connection: &mut PgConnection,
        claims: Vec<Claim>,
    ) -> Result<Duration, Error> {
        for claim in claims {
            let started = Instant::now();
            if within(FOLD_TIMEOUT, fold_claim(connection, &claim)).await? {
                return Ok(match claim.haste {
                    Haste::Steady => started.elapsed(),
                    Haste::CatchingUp => Duration::ZERO,
                });
            }
        }
        Ok(IDLE_WAIT)
    }

    fn publish(&self, status: Status) {
        self.status.send_if_modified(|last| {
            let is_news = *last != status;
            *last = status;
            is_news
        });
    }
}

/// One database transaction: lock, fold, advance. Gives false when there is nothing to lock.
async fn fold_claim(connection: &mut PgConnection, claim: &Claim) -> Result<bool, Error> {
    let Claim {
        model, partitions, ..
    } = claim;
    let started = Instant::now();
    let mut db_tx = connection.begin().await?;
    let ranges = cap(positions::claim(&mut db_tx, model, partitions).await?);
    if ranges.is_empty() {
        db_tx.rollback().await?;
        return Ok(false);
    }
    match fold_and_advance(&mut db_tx, model, &ranges).await {
        Ok(slices) => {
            db_tx.commit().await?;
            count(model, seqs(&ranges), slices, started.elapsed());
            if claim.is_retry {
                tracing::info!(
                    model = model.name,
                    ?partitions,
                    "the read model works again"
                );
            }
        }
        Err(Error::Broken(failure)) => {
            db_tx.rollback().await?;
            record(connection, model, &ranges, &failure).await?;
        }
        Err(unavailable) => return Err(unavailable),
    }
    Ok(true)
}

/// Cuts the ranges to what one fold takes.
fn cap(mut ranges: Vec<Range>) -> Vec<Range> {
    let mut left = FOLD_SEQS_MAX;
    for range in &mut ranges {
        range.next_seq = range.next_seq.min(range.from_seq + left);
        left -= range.seqs();
    }
    ranges.retain(|range| range.seqs() > 0);
    ranges
}

/// Records a failed fold for each of its partitions, which are then tried one by one: those that are
/// not to blame are folded with the next try.
async fn record(
    connection: &mut PgConnection,
    model: &Model,
    ranges: &[Range],
    failure: &str,
) -> Result<(), Error> {
    let mut news = Vec::new();
    for Range { partition, .. } in ranges {
        if positions::record_failure(connection, model, *partition, failure).await? {
            news.push(partition);
        }
    }
    if !news.is_empty() {
        tracing::error!(
            model = model.name,
            partitions = ?news,
            error = failure,
            "the read model cannot be folded and stays behind"
        );
    }
    Ok(())
}

fn names(models: &'static [Model]) -> Vec<&'static str> {
    models.iter().map(|model| model.name).collect()
}

/// A step with a bound: a connection that hangs is given up.
async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        Err(Error::Unavailable(
            std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
        ))
    })
}

/// Exponential, capped; `jitter` is a factor.
fn retry_wait(failures: u32, jitter: f64) -> Duration {
    RETRY_MIN
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(RETRY_MAX)
        .mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_longer_and_longer_up_to_a_cap() {
        for (failures, jitter, expected_ms) in [
            (0, 1.0, 100),
            (1, 1.0, 200),
            (3, 0.5, 400),
            (7, 1.0, 10_000),
            (u32::MAX, 0.5, 5_000),
        ] {
            assert_eq!(
                retry_wait(failures, jitter),
                Duration::from_millis(expected_ms),
                "{failures} {jitter}"
            );
        }
    }

    #[test]
    fn one_fold_takes_no_more_than_its_maximum() {
        let range = |partition, seqs| Range {
            partition,
            from_seq: 10,
            next_seq: 10 + seqs,
        };
        for (ranges, expected) in [
            (vec![], vec![]),
            (vec![range(0, 5)], vec![range(0, 5)]),
            (
                vec![range(0, FOLD_SEQS_MAX + 1), range(1, 1)],
                vec![range(0, FOLD_SEQS_MAX)],
            ),
            (
                vec![range(0, FOLD_SEQS_MAX - 2), range(1, 5), range(2, 5)],
                vec![range(0, FOLD_SEQS_MAX - 2), range(1, 2)],
            ),
        ] {
            assert_eq!(cap(ranges), expected);
        }
    }
}
