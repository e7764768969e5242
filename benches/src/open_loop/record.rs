//! What is kept of a run: one JSON object a line.

use std::collections::BTreeMap;

use millrace_benches::conditions::Conditions;
use millrace_benches::latency::Latency;
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::cli::Settings;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, as the database's clock had it (UTC).
    pub at: String,
    /// What was offered.
    pub case: Case,
    /// For how long, and by what.
    pub settings: Settings,
    /// `kafka`: every service a process of its own, on real servers; `dev`: one `millrace dev`.
    pub servers: String,
    /// What came of it.
    pub figures: Figures,
    /// Checks that failed, and transactions that were not accepted.
    pub failures: Vec<String>,
    /// Where and with what.
    pub conditions: Conditions,
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Accepted transactions per second of the measured time.
    pub accepted_per_s: f64,
    /// The measured time, to the last answer.
    pub seconds: f64,
    /// Of the measured time.
    pub counts: Counts,
    /// Accepted in all, the time before the measured one included.
    pub all_accepted: u64,
    /// The same of those that failed: they may be posted or not.
    pub all_failed: u64,
    /// What became posted.
    pub all_posted: i64,
    /// From when a request was due to its answer.
    pub accept: Latency,
    /// From when a request was due until its last transaction was read from the query API.
    pub visible: Latency,
    /// The same, from its answer on.
    pub visible_after: Latency,
    /// CPU in microseconds per accepted transaction, by process; what none of them spent is `others`.
    pub cpu_us: BTreeMap<String, f64>,
}

/// Transactions, or samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub accepted: u64,
    /// One by one, in a request that was accepted otherwise.
    pub refused: u64,
    /// In requests that the gateway had no room for.
    pub turned_away: u64,
    /// In requests that failed.
    pub failed: u64,
    /// The first of them.
    pub first_failure: Option<String>,
    /// Too late to be sent at all.
    pub not_sent: u64,
    /// Samples that the query API did not answer with the transaction.
    pub not_found: u64,
    /// Samples beyond what could be asked for at once.
    pub not_looked_for: u64,
}

impl Counts {
    /// A request failed.
    pub fn fail(&mut self, items: u64, error: &anyhow::Error) {
        self.failed += items;
        self.first_failure
            .get_or_insert_with(|| format!("{error:#}"));
    }

    /// Everything that was offered and is not both accepted and, of the samples, seen.
    fn troubles(&self) -> Vec<String> {
        let counts = [
            (self.refused, "refused"),
            (self.turned_away, "turned away"),
            (self.failed, "failed"),
            (self.not_sent, "not sent"),
            (self.not_found, "samples not found"),
            (self.not_looked_for, "samples not looked for"),
        ];
        let found = counts.iter().filter(|(count, _)| *count > 0);
        let counts = found.map(|(count, what)| format!("{count} {what}"));
        let first = self.first_failure.iter();
        counts
            .chain(first.map(|why| format!("the first failure: {why}")))
            .collect()
    }

    /// What was offered and not accepted.
    pub fn lost(&self) -> u64 {
        self.refused + self.turned_away + self.failed + self.not_sent
    }
}

impl Figures {
    /// Everything that is wrong: nothing is the result hoped for.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.counts.troubles();
        let most = self.all_accepted + self.all_failed;
        let is_right =
            u64::try_from(self.all_posted).is_ok_and(|n| (self.all_accepted..=most).contains(&n));
        if !is_right {
            failures.push(format!(
                "{} posted of {} accepted and {} failed",
                self.all_posted, self.all_accepted, self.all_failed
            ));
        }
        failures
    }
}

impl Record {
    /// For the person who waits.
    pub fn summary(&self) -> String {
        let figures = &self.figures;
        let cpu = figures.cpu_us.iter();
        let cpu: Vec<_> = cpu.map(|(name, us)| format!("{name} {us:.0}")).collect();
        let line = |name, latency: &Latency| {
            format!(
                "  {name}: {} ms ({} samples)\n",
                latency.cells(),
                latency.samples
            )
        };
        format!(
            "  {:.0} tx/s accepted; {}\n{}{}{}  CPU µs per transaction: {}",
            figures.accepted_per_s,
            if self.failures.is_empty() {
                "all accepted are posted once, verify holds".to_owned()
            } else {
                format!("FAILED: {}", self.failures.join("; "))
            },
            line("due to accepted, p50 / p99 / p99.9 / max", &figures.accept),
            line("due to visible", &figures.visible),
            line("accepted to visible", &figures.visible_after),
            cpu.join(", "),
        )
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use millrace_benches::latency;

    use super::*;
    use crate::case::Shape;

    pub fn record(rate: u32, latency_ms: u64) -> Record {
        let mut histogram = latency::histogram();
        latency::record(&mut histogram, Duration::from_millis(latency_ms));
        let latency = Latency::of(&histogram);
        Record {
            at: "2026-01-31T12:00:00Z".into(),
            case: Case::new(Shape::Single, rate, 1),
            settings: Settings {
                seconds: 30,
                warmup: 5,
                samples: 1,
                connections: 2,
                accounts: 3,
                partitions: 4,
                lanes: 5,
            },
            servers: "kafka".into(),
            figures: Figures {
                accepted_per_s: rate.into(),
                seconds: 30.0,
                counts: Counts::default(),
                all_accepted: 7,
                all_failed: 0,
                all_posted: 7,
                accept: latency.clone(),
                visible: latency.clone(),
                visible_after: latency,
                cpu_us: [("gateway".to_owned(), 12.0)].into(),
            },
            failures: Vec::new(),
            conditions: Conditions {
                cores: 2,
                cpu: "a cpu".into(),
                memory_mib: 1,
                kernel: "6".into(),
                postgres: BTreeMap::default(),
                kafka: None,
                brokers: 1,
                librdkafka: "2".into(),
                millrace: "millrace 0".into(),
                commit: None,
            },
        }
    }

    #[test]
    fn what_is_kept_can_be_read() {
        let kept = record(1_000, 14);
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), kept);
    }

    #[test]
    fn what_failed_may_be_posted_and_nothing_else() {
        let mut figures = record(1, 1).figures;
        assert_eq!(figures.failures(), [""; 0]);
        figures.all_posted = 8;
        assert_eq!(figures.failures(), ["8 posted of 7 accepted and 0 failed"]);
        figures.all_failed = 1;
        assert_eq!(figures.failures(), [""; 0]);
        figures.counts.not_sent = 3;
        figures.all_posted = 6;
        assert_eq!(figures.failures().len(), 2);
    }
}
