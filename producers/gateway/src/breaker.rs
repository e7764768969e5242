//! Answers at once while Kafka is away, with one probe a second.

use std::time::{Duration, Instant};

/// How often a request may try whether Kafka is back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether Kafka acknowledges records.
///
/// A failure counts only when nothing was acknowledged since its record was handed in: records that were
/// queued before an outage fail after it, and one partition without a leader is not all of Kafka.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    last_success: Option<Instant>,
    away: Option<Away>,
}

#[derive(Debug, Clone, Copy)]
struct Away {
    since: Instant,
    next_probe: Instant,
}

impl Breaker {
    /// Whether a request may try. While Kafka is away, that is one a second.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        match &mut self.away {
            None => true,
            Some(away) if now < away.next_probe => false,
            Some(away) => {
                away.next_probe = now + PROBE_INTERVAL;
                true
            }
        }
    }

    /// A record was acknowledged. Says for how long Kafka was away, if it was.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.last_success = Some(now);
        self.away.take().map(|away| now.duration_since(away.since))
    }

    /// A record that was handed in at `since` was not acknowledged. Whether this is news.
    pub(crate) fn failed(&mut self, since: Instant, now: Instant) -> bool {
        let is_news =
            self.away.is_none() && self.last_success.is_none_or(|success| success < since);
        if is_news {
            self.away = Some(Away {
                since: now,
                next_probe: now + PROBE_INTERVAL,
            });
        }
        is_news
    }

    /// How long Kafka has been away.
    pub(crate) fn away_for(&self, now: Instant) -> Option<Duration> {
        self.away.map(|away| now.duration_since(away.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_a_second_until_a_success() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut breaker = Breaker::default();
        assert!(breaker.admits(at(0)));
        assert!(breaker.failed(at(0), at(10)));
        assert!(!breaker.failed(at(0), at(20)), "no news");
        assert!(!breaker.admits(at(1009)));
        assert!(breaker.admits(at(1010)), "the probe");
        assert!(!breaker.admits(at(1011)));
        assert_eq!(breaker.away_for(at(1010)), Some(Duration::from_secs(1)));
        assert_eq!(breaker.succeeded(at(2010)), Some(Duration::from_secs(2)));
        assert!(breaker.admits(at(2011)));
    }

    #[test]
    fn a_late_failure_does_not_undo_a_success() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut breaker = Breaker::default();
        breaker.succeeded(at(100));
        assert!(!breaker.failed(at(50), at(200)));
        assert!(breaker.failed(at(150), at(300)));
    }
}
