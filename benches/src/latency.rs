//! Latencies as they are kept: percentiles for people, and the histogram itself, so that runs can be
//! added up later.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart: far beyond every timeout of the services.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Digits of a latency: within 1 %, and a histogram is a few KB.
const DIGITS: u8 = 2;

/// Many latencies. Times are in milliseconds but for the histogram's, which are in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there are.
    pub samples: u64,
    /// Half of them are not longer.
    pub p50: f64,
    /// 99 in 100 are not longer.
    pub p99: f64,
    /// 999 in 1,000 are not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// The histogram: each latency that occurs, and how often.
    pub counts_us: Vec<(u64, u64)>,
}

/// For latencies in microseconds. The bound is given: without one it would begin with a range of 2 µs,
/// and recording would cut everything to that.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("constants that fit")
}

impl Latency {
    /// Of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        let counts = histogram.iter_recorded();
        Self {
            samples: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
            counts_us: counts
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }

    /// Adds them to a histogram from [`histogram`].
    pub fn add_to(&self, histogram: &mut Histogram<u64>) -> anyhow::Result<()> {
        for (micros, count) in &self.counts_us {
            histogram
                .record_n(*micros, *count)
                .with_context(|| format!("a latency of {micros} µs"))?;
        }
        Ok(())
    }

    /// Several runs as one.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> anyhow::Result<Self> {
        let mut histogram = histogram();
        for latency in all {
            latency.add_to(&mut histogram)?;
        }
        Ok(Self::of(&histogram))
    }

    /// Percentiles, such as 99.9, and their latencies in milliseconds.
    pub fn at(&self, percentiles: &[f64]) -> anyhow::Result<Vec<(f64, f64)>> {
        let mut histogram = histogram();
        self.add_to(&mut histogram)?;
        let at = |p: &f64| (*p, millis(histogram.value_at_percentile(*p)));
        Ok(percentiles.iter().map(at).collect())
    }

    /// For tables: p50 / p99 / p99.9 / max.
    pub fn cells(&self) -> String {
        if self.samples == 0 {
            return String::new();
        }
        let Self {
            p50,
            p99,
            p999,
            max,
            ..
        } = self;
        format!("{p50:.1} / {p99:.1} / {p999:.1} / {max:.1}")
    }
}

/// Adds a latency, cut to the longest that is told apart.
pub fn record(histogram: &mut Histogram<u64>, latency: std::time::Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

#[expect(clippy::cast_precision_loss, reason = "latencies are below 2^52 µs")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(millis: &[u64]) -> Latency {
        let mut histogram = histogram();
        for millis in millis {
            record(&mut histogram, Duration::from_millis(*millis));
        }
        Latency::of(&histogram)
    }

    #[test]
    fn a_long_latency_is_kept_as_it_was() {
        let found = of(&[1, 25, 4_000]);
        assert!((found.p50 - 25.0).abs() < 0.25, "{found:?}");
        assert!((found.max - 4_000.0).abs() < 40.0, "{found:?}");
    }

    #[test]
    fn what_is_kept_can_be_read_and_added_up() {
        let [short, long] = [of(&[1, 2, 3, 150]), of(&[10, 10, 90_000, 999_999])];
        let text = serde_json::to_string(&short).unwrap();
        let read: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(read, short);
        assert_eq!(Latency::sum([&read]).unwrap(), short);
        let sum = Latency::sum([&short, &long]).unwrap();
        assert_eq!(sum.samples, 8);
        assert_eq!(sum.max.to_bits(), long.max.to_bits());
        assert_eq!(sum, of(&[1, 2, 3, 150, 10, 10, 90_000, 999_999]));
    }

    #[test]
    fn no_latency_is_no_figure() {
        assert_eq!(of(&[]).cells(), "");
        assert_eq!(of(&[2]).cells(), "2.0 / 2.0 / 2.0 / 2.0");
    }

    #[test]
    fn percentiles_are_those_of_the_histogram() {
        let found = of(&[1, 2, 3, 100]).at(&[50.0, 99.0]).unwrap();
        let close = |(place, ms): (f64, f64), (p, wanted): (f64, f64)| {
            place.total_cmp(&p).is_eq() && (ms - wanted).abs() < wanted / 100.0
        };
        assert!(close(found[0], (50.0, 2.0)), "{found:?}");
        assert!(close(found[1], (99.0, 100.0)), "{found:?}");
    }
}
