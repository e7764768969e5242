//! Waits between tries: capped, doubling, with jitter.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// The first wait after a failure; it doubles each time.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait between two tries: a database that is back is used within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// After so long without a failure the next one is a first one again.
const BACKOFF_FORGOTTEN: Duration = Duration::from_secs(5);

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    retry_at: Duration,
}

impl Backoff {
    /// How much of the wait is left at `now`.
    pub(super) fn left(&self, now: Duration) -> Duration {
        self.retry_at.saturating_sub(now)
    }

    /// A try has failed: how long to wait. Full jitter over the upper half spreads many lanes.
    pub(super) fn fail(&mut self, now: Duration, random: &mut SmallRng) -> Duration {
        let doubled = BACKOFF_MIN * 2u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        let wait = doubled
            .min(BACKOFF_MAX)
            .mul_f64(random.random_range(0.5..=1.0));
        self.retry_at = now + wait;
        wait
    }

    /// Forgets failures that are long over.
    pub(super) fn forget(&mut self, now: Duration) {
        if now > self.retry_at + BACKOFF_FORGOTTEN {
            self.failures = 0;
        }
    }
}
