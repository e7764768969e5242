//! Publishing and draining transactions.

use std::time::{Duration, Instant};

use anyhow::bail;
use millrace_benches::programs::Millrace;
use millrace_benches::services::{Environment, Services};
use sqlx::PgConnection;

use crate::cli::Settings;

/// Short beside a drain of seconds, and one cheap query each.
const POLL: Duration = Duration::from_millis(50);

/// How long the ledger may make no progress.
const STALL_MAX: Duration = Duration::from_mins(1);

/// When the first transaction occurs: 2026-01-01T00:00:00Z, microseconds since 1970.
const START_MICROS: i64 = 1_767_225_600_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// Days of the preloaded transactions.
const DAYS: i64 = 30;

/// Publishes batches of transactions, each of a day and with a seed of its own.
#[derive(Debug)]
pub struct Source<'a> {
    millrace: &'a Millrace,
    environment: &'a Environment,
    accounts: u64,
    days: i64,
    /// How many were published so far.
    pub published: u64,
}

/// A moment of a drain.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    applied: i64,
}

impl<'a> Source<'a> {
    /// Nothing yet.
    pub fn new(millrace: &'a Millrace, environment: &'a Environment, settings: &Settings) -> Self {
        Self {
            millrace,
            environment,
            accounts: settings.accounts,
            days: 0,
            published: 0,
        }
    }

    /// Publishes so many, of the next day.
    pub async fn publish(&mut self, count: u64) -> anyhow::Result<()> {
        self.days += 1;
        let start = START_MICROS + self.days * DAY_MICROS;
        let flags = [
            ("--count", count.to_string()),
            ("--accounts", self.accounts.to_string()),
            ("--seed", self.days.to_string()),
            ("--start", start.to_string()),
        ];
        let mut arguments = vec!["generate".to_owned()];
        for (flag, value) in flags {
            arguments.extend([flag.to_owned(), value]);
        }
        self.millrace.run(&arguments, self.environment).await?;
        self.published += count;
        Ok(())
    }

    /// Publishes as many as shall be there before, over some days.
    pub async fn preload(&mut self, count: u64) -> anyhow::Result<()> {
        let days = DAYS.unsigned_abs();
        for day in 0..days {
            self.publish(count / days + u64::from(day < count % days))
                .await?;
        }
        Ok(())
    }
}

/// Waits until so many are applied.
pub async fn applied(
    connection: &mut PgConnection,
    services: &mut Services<'_>,
    target: u64,
) -> anyhow::Result<Mark> {
    let target = i64::try_from(target)?;
    let mut last = 0;
    let mut moved = Instant::now();
    loop {
        let applied: i64 =
            sqlx::query_scalar("select coalesce(sum(position), 0)::bigint from millrace.positions")
                .fetch_one(&mut *connection)
                .await?;
        let at = Instant::now();
        if applied >= target {
            return Ok(Mark { at, applied });
        }
        services.check()?;
        if applied != last {
            (last, moved) = (applied, at);
        } else if moved.elapsed() > STALL_MAX {
            bail!("no progress for {STALL_MAX:?}: at {applied} of {target}");
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Mark {
    /// Transactions since an earlier one.
    pub fn count_since(&self, earlier: &Self) -> u64 {
        u64::try_from(self.applied - earlier.applied).unwrap_or(0)
    }

    /// Transactions per second since an earlier one.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn rate_since(&self, earlier: &Self) -> f64 {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        (self.applied - earlier.applied) as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_between_two_marks() {
        let at = Instant::now();
        let first = Mark { at, applied: 1_000 };
        let last = Mark {
            at: at + Duration::from_millis(500),
            applied: 31_000,
        };
        assert_eq!(last.count_since(&first), 30_000);
        assert!((last.rate_since(&first) - 60_000.0).abs() < 1e-6);
    }
}
