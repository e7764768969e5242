//! What is kept of a window: one JSON object a line.

use millrace_benches::conditions::Conditions;
use millrace_benches::latency::Latency;
use serde::{Deserialize, Serialize};

use crate::cli::Settings;
use crate::endpoint::Endpoint;

/// One window: readers, ingest, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, as the database's clock had it (UTC).
    pub at: String,
    /// What was asked for; none where nobody reads.
    pub endpoint: Option<Endpoint>,
    /// How much, and by how many.
    pub settings: Settings,
    /// What came of it.
    pub figures: Figures,
    /// Checks of the whole run that failed.
    pub failures: Vec<String>,
    /// Where and with what.
    pub conditions: Conditions,
}

/// The figures of one window. `_us` is CPU in microseconds per request; none where it cannot be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Transactions in the log before; those of earlier windows are applied.
    pub rows_before: u64,
    /// Its length.
    pub seconds: f64,
    /// Requests that were answered with 200, per second.
    pub requests_per_s: f64,
    /// From asking to the whole answer.
    pub latency: Latency,
    /// Requests that were answered otherwise, or not.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// The query service.
    pub query_us: Option<f64>,
    /// Its connections in Postgres.
    pub postgres_us: Option<f64>,
    /// Transactions applied per second meanwhile; none without ingest.
    pub ingest_per_s: Option<f64>,
    /// CPU in microseconds that the ledger spent per transaction.
    pub ledger_us: Option<f64>,
}

impl Record {
    /// For the person who waits.
    pub fn summary(&self) -> String {
        let Figures {
            seconds,
            requests_per_s,
            latency,
            errors,
            query_us,
            postgres_us,
            ingest_per_s,
            ..
        } = &self.figures;
        let us = |us: &Option<f64>| us.map_or("not seen".into(), |us| format!("{us:.0} µs"));
        let reading = self.endpoint.map(|_| {
            format!(
                "{requests_per_s:.0} requests/s; {} ms; {errors} errors; CPU query {}, Postgres {}",
                latency.cells(),
                us(query_us),
                us(postgres_us)
            )
        });
        let ingest = ingest_per_s.map(|rate| format!("ingest {rate:.0} tx/s"));
        let parts: Vec<_> = reading.into_iter().chain(ingest).collect();
        format!("  in {seconds:.1} s: {}", parts.join("; "))
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use millrace_benches::latency;

    use super::*;

    pub fn record(endpoint: Option<Endpoint>, ingest_per_s: Option<f64>) -> Record {
        let mut histogram = latency::histogram();
        latency::record(&mut histogram, Duration::from_millis(2));
        Record {
            at: "2026-01-31T12:00:00Z".into(),
            endpoint,
            settings: Settings {
                preload: 100,
                count: 1_000,
                seconds: 3,
                connections: 4,
                accounts: 5,
                partitions: 6,
                lanes: 7,
            },
            figures: Figures {
                rows_before: 100,
                seconds: 3.0,
                requests_per_s: 2_000.0,
                latency: Latency::of(&histogram),
                errors: 0,
                first_error: None,
                query_us: Some(100.0),
                postgres_us: None,
                ingest_per_s,
                ledger_us: None,
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
        let kept = record(Some(Endpoint::AccountTransactions), Some(60_000.0));
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), kept);
    }
}
