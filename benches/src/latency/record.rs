//! What is kept of a run: one JSON object a line.

use hdrhistogram::Histogram;
use millrace_benches::machine;
use serde::Serialize;

use crate::cli::{Cli, Format};

/// The longest latency that is told apart: far beyond every timeout of the services.
const LATENCY_MAX_US: u64 = 120_000_000;

/// For latencies in microseconds, with three digits. The bound is given: without one it would begin
/// with a range of 2 µs, and recording would cut everything to that.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?)
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Record {
    servers: String,
    /// Transactions per second.
    offered_per_s: u32,
    accepted_per_s: f64,
    items: u32,
    format: Format,
    connections: u32,
    accounts: u32,
    seconds: f64,
    counts: Counts,
    /// Accepted in all, the time before the measured one included, and what became posted of it.
    all_accepted: u64,
    all_posted: i64,
    /// From when a request was due to its answer, milliseconds.
    accept: Percentiles,
    /// From when a request was due until its last transaction was read from the query API, milliseconds.
    visible: Percentiles,
    cores: usize,
    cpu: String,
    kernel: String,
}

/// Transactions of the measured time.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    pub accepted: u64,
    /// One by one, in a request that was accepted otherwise.
    pub refused: u64,
    /// In requests that failed.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Too late to be sent at all.
    pub not_sent: u64,
    /// Samples that the query API did not answer with the transaction.
    pub not_found: u64,
    /// Samples beyond what could be asked for at once.
    pub not_looked_for: u64,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    samples: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Counts {
    /// A request failed.
    pub fn fail(&mut self, items: u64, error: &anyhow::Error) {
        self.failed += items;
        self.first_failure
            .get_or_insert_with(|| format!("{error:#}"));
    }
}

impl Percentiles {
    /// Of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            samples: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are below 2^52 µs")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

impl Record {
    /// With where it ran.
    pub fn new(
        cli: &Cli,
        counts: Counts,
        seconds: f64,
        (all_accepted, all_posted): (u64, i64),
        [accept, visible]: [Percentiles; 2],
    ) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^52")]
        let accepted_per_s = counts.accepted as f64 / seconds;
        Self {
            servers: cli.servers.clone(),
            offered_per_s: cli.rate,
            accepted_per_s,
            items: cli.items,
            format: cli.format,
            connections: cli.connections,
            accounts: cli.accounts,
            seconds,
            counts,
            all_accepted,
            all_posted,
            accept,
            visible,
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            cpu: machine::cpu_model(),
            kernel: machine::kernel(),
        }
    }

    /// Whether every transaction was accepted and posted once, and every sample found.
    pub fn is_clean(&self) -> bool {
        let counts = &self.counts;
        let troubles = counts.refused + counts.failed + counts.not_sent + counts.not_found;
        troubles == 0 && u64::try_from(self.all_posted) == Ok(self.all_accepted)
    }

    /// For the person who waits.
    pub fn summary(&self) -> String {
        let counts = &self.counts;
        let line = |name, p: &Percentiles| {
            format!(
                "{name} ms: p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ({} samples)",
                p.p50, p.p90, p.p99, p.p999, p.max, p.samples
            )
        };
        format!(
            "{}: {} tx/s offered in {:?} of {}: {:.0} tx/s accepted; {} refused, {} failed, {} not sent, \
             {} not found; {} of all {} accepted are posted\n  {}\n  {}{}",
            self.servers,
            self.offered_per_s,
            self.format,
            self.items,
            self.accepted_per_s,
            counts.refused,
            counts.failed,
            counts.not_sent,
            counts.not_found,
            self.all_posted,
            self.all_accepted,
            line("accepted", &self.accept),
            line("visible", &self.visible),
            counts
                .first_failure
                .as_deref()
                .map_or(String::new(), |why| format!("\n  first failure: {why}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_latency_is_kept_as_it_was() {
        let mut histogram = histogram().unwrap();
        for micros in [900, 25_000, 4_000_000] {
            histogram.saturating_record(micros);
        }
        let found = Percentiles::of(&histogram);
        assert!((found.p50 - 25.0).abs() < 0.1, "{found:?}");
        assert!((found.max - 4_000.0).abs() < 4.0, "{found:?}");
    }
}
