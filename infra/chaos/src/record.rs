//! What is kept and told of a run: one JSON object a line.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_benches::machine;
use serde::{Deserialize, Serialize};

use crate::faults::{Fault, Kind};
use crate::options::Options;
use crate::oracle::Judgement;

/// One line of a results file.
#[derive(Debug, Serialize)]
pub struct Line<'a, T> {
    /// The run.
    pub run: &'a str,
    /// What is told of it.
    #[serde(flatten)]
    pub content: T,
}

/// One fault and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// From 1.
    pub number: u32,
    /// What was done.
    pub kind: Kind,
    /// When, in seconds since the run's start.
    pub at_s: f64,
    /// Whether another fault was not over yet.
    pub overlapping: bool,
    /// Whether it was made.
    pub is_made: bool,
    /// Which replica or server.
    pub victim: String,
    /// The partitions that it owned; all of them where a server was struck.
    pub partitions: Vec<usize>,
    /// How long it lasted, where it was not over at once.
    pub lasted_ms: Option<u64>,
    /// From the fault until each of these partitions was processed again.
    pub recovered_ms: Option<u64>,
    /// From the fault until every partition of the topic was.
    pub all_recovered_ms: Option<u64>,
    /// From SIGTERM to the replica's end.
    pub exit_ms: Option<u64>,
    /// Its exit status.
    pub exit_code: Option<i32>,
    /// What else is to be said.
    pub note: Option<String>,
    /// What the harness could not do.
    pub error: Option<String>,
}

/// What the figures depend on.
#[derive(Debug, Serialize)]
pub struct Conditions {
    cores: usize,
    cpu: String,
    kernel: String,
    postgres: String,
    brokers: usize,
    librdkafka: String,
    millrace: String,
    commit: Option<String>,
    seed: u64,
    replicas: usize,
    rate: f64,
    session_timeout_ms: u32,
    partitions: i32,
    accounts: u64,
}

/// The end of a run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// When it ended, as the database's clock had it (UTC).
    pub at: String,
    /// From the first transaction to the last acknowledgement.
    pub load_s: f64,
    /// Transactions acknowledged per second of that.
    pub tx_per_s: f64,
    /// Faults that were made.
    pub faults: usize,
    /// What the oracle found.
    pub judgement: Judgement,
    /// Everything that failed.
    pub failures: Vec<String>,
    /// What all this depends on.
    pub conditions: Conditions,
}

impl FaultRecord {
    /// Nothing has come of it yet.
    pub fn new(fault: Fault, overlapping: bool, at: Duration) -> Self {
        Self {
            number: fault.number,
            kind: fault.kind,
            at_s: at.as_secs_f64(),
            overlapping,
            is_made: false,
            victim: String::new(),
            partitions: Vec::new(),
            lasted_ms: None,
            recovered_ms: None,
            all_recovered_ms: None,
            exit_ms: None,
            exit_code: None,
            note: None,
            error: None,
        }
    }

    /// What is wrong with it, if anything.
    pub fn failure(&self) -> Option<String> {
        let what = if !self.is_made {
            return None;
        } else if let Some(error) = &self.error {
            error.clone()
        } else if self.recovered_ms.is_none() {
            "not recovered from".to_owned()
        } else if self.exit_ms.is_some() && self.exit_code != Some(0) {
            format!("exit status {:?}", self.exit_code)
        } else {
            return None;
        };
        let (kind, victim) = (self.kind.name(), &self.victim);
        Some(format!("fault {}, {kind} ({victim}): {what}", self.number))
    }

    /// One line for the person who waits.
    pub fn line(&self) -> String {
        let mut parts = vec![format!(
            "{:7.1} s  #{:<3} {:<35}",
            self.at_s,
            self.number,
            self.kind.name()
        )];
        if self.is_made {
            let recovered = seconds(self.recovered_ms);
            parts.push(format!("{:<8} recovered after {recovered}", self.victim));
        }
        if let Some(lasted) = self.lasted_ms {
            parts.push(format!("(lasted {})", seconds(Some(lasted))));
        }
        if let Some(exit) = self.exit_ms {
            parts.push(format!("(exited after {})", seconds(Some(exit))));
        }
        if self.overlapping {
            parts.push("(two at once)".into());
        }
        if self.is_made && !self.counts() {
            parts.push("(it owned nothing)".into());
        }
        parts.extend(self.note.iter().map(|note| format!("({note})")));
        parts.join(" ")
    }
}

impl Conditions {
    /// Reads them all.
    pub fn read(options: &Options, postgres: String, brokers: usize, millrace: String) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: machine::cpu_model(),
            kernel: machine::kernel(),
            postgres,
            brokers,
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            millrace,
            commit: machine::commit(),
            seed: options.seed,
            replicas: options.replicas,
            rate: options.rate,
            session_timeout_ms: options.session_timeout_ms,
            partitions: options.partitions,
            accounts: options.accounts,
        }
    }
}

/// Recovery by kind of fault. Two at once are counted apart: the time does not tell which of them it was.
pub fn table(faults: &[FaultRecord]) -> Vec<String> {
    let mut kinds = BTreeMap::<Option<Kind>, Vec<&FaultRecord>>::new();
    for fault in faults.iter().filter(|fault| fault.counts()) {
        let kind = (!fault.overlapping).then_some(fault.kind);
        kinds.entry(kind).or_default().push(fault);
    }
    let head = ["fault", "times", "recovered, s", "it lasted, s"].map(str::to_owned);
    let lines = kinds.into_iter().map(|(kind, faults)| {
        let recovered = faults.iter().filter_map(|fault| fault.recovered_ms);
        let lasted = faults.iter().filter_map(|fault| fault.lasted_ms);
        let [recovered, lasted] = [Spread::of(recovered), Spread::of(lasted)];
        [
            kind.map_or("two at once, any of the others", Kind::name)
                .to_owned(),
            faults.len().to_string(),
            recovered.to_string(),
            lasted.to_string(),
        ]
    });
    std::iter::once(head)
        .chain(lines)
        .map(|[kind, times, recovered, lasted]| {
            format!("{kind:<36} {times:>6}  {recovered:>18}  {lasted:>18}")
        })
        .collect()
}

impl FaultRecord {
    /// Whether its times say something: a replica that owns nothing has nothing to recover.
    pub fn counts(&self) -> bool {
        self.is_made && !self.partitions.is_empty()
    }
}

/// Median and maximum of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// The upper one where two are in the middle.
    pub median_ms: Option<u64>,
    /// The worst.
    pub max_ms: Option<u64>,
}

impl Spread {
    /// Of these milliseconds.
    pub fn of(times: impl Iterator<Item = u64>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        Self {
            median_ms: times.get(times.len() / 2).copied(),
            max_ms: times.last().copied(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.median_ms, self.max_ms) {
            (Some(_), Some(_)) => {
                let (median, max) = (seconds(self.median_ms), seconds(self.max_ms));
                write!(f, "{median} (max {max})")
            }
            _ => f.write_str("-"),
        }
    }
}

/// In seconds.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub fn seconds(millis: Option<u64>) -> String {
    millis.map_or_else(
        || "never".into(),
        |millis| format!("{:.2}", millis as f64 / 1_000.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_value_of_the_sample() {
        let spread = |times: &[u64]| Spread::of(times.iter().copied()).to_string();
        assert_eq!(spread(&[]), "-");
        assert_eq!(spread(&[1_500]), "1.50 (max 1.50)");
        assert_eq!(spread(&[3_000, 1_000, 2_000]), "2.00 (max 3.00)");
    }
}
