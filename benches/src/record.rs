//! What is kept of a run: one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::conditions::Conditions;

/// A line of a file of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Kept {
    Drain(Box<Record>),
    Rebuild(Box<Rebuild>),
}

/// One drain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it ended, as the database's clock had it (UTC).
    pub at: String,
    /// What was run.
    pub case: Case,
    /// What came of it.
    pub figures: Figures,
    /// Checks that failed: the figures mean nothing then.
    pub failures: Vec<String>,
    /// Where and with what.
    pub conditions: Conditions,
}

/// The figures of one run. `_us` is CPU in microseconds per measured transaction, user and system time
/// together; none where a server is not on this machine. CPU and WAL count from before the ledger was
/// started until everything was applied, and folded where background models run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Measured transactions per second: those after the first batch, over `drain_s`.
    pub tx_per_s: f64,
    /// From the moment that the first measured batch was decided to the last one's.
    pub drain_s: f64,
    /// From the ledger's start (joining the group included) until everything was committed.
    pub wall_s: f64,
    /// All replicas together, from their start.
    pub ledger_us: f64,
    /// Each of them.
    pub ledger_each_us: Vec<f64>,
    /// The largest replica's peak.
    pub ledger_peak_mib: f64,
    /// All processes of Postgres.
    pub postgres_us: Option<f64>,
    /// Of these, the ledger's connections.
    pub postgres_ledger_us: Option<f64>,
    /// What a checkpoint right after cost Postgres: pages that were still to be written.
    pub checkpoint_us: Option<f64>,
    /// All brokers.
    pub kafka_us: Option<f64>,
    /// Write-ahead log per measured transaction, full pages after the checkpoint before it included.
    pub wal_bytes: f64,
    /// What other processes took of the machine meanwhile, or its host withheld; percent of all cores.
    pub others_percent: Option<f64>,
    /// Measured transactions per database transaction.
    pub per_commit: f64,
    /// Rows of the ledger before.
    pub rows_before: i64,
    /// What became of the measured transactions.
    pub verdicts: Verdicts,
    /// Where background models run.
    pub models: Option<Models>,
}

/// How many records became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Verdicts {
    pub posted: i64,
    pub duplicate: i64,
    pub rejected: i64,
    pub refused: i64,
    pub parked: i64,
    pub skipped: i64,
}

/// What the background models cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Measured transactions per second until they are folded too.
    pub tx_per_s: f64,
    /// How long after the last commit the models were up to date.
    pub behind_s: f64,
    /// CPU of `millrace project`.
    pub project_us: f64,
    /// Its peak.
    pub project_peak_mib: f64,
    /// CPU of its connections in Postgres.
    pub postgres_project_us: Option<f64>,
    /// CPU of all of Postgres until the ledger was done, the models not yet.
    pub postgres_drained_us: Option<f64>,
}

/// Read models, folded from nothing over a whole ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rebuild {
    /// When it ended, as the database's clock had it (UTC).
    pub at: String,
    /// How the ledger was made.
    pub case: Case,
    /// Rows of the ledger.
    pub rows: i64,
    /// One after the other, each into empty tables.
    pub folds: Vec<Fold>,
    /// Checks that failed.
    pub failures: Vec<String>,
    /// Where and with what.
    pub conditions: Conditions,
}

/// One catching up by `millrace project`. `_us` is CPU in microseconds per row of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    /// The models that were folded, the others being up to date.
    pub models: Vec<String>,
    /// `--workers`.
    pub workers: u32,
    /// From the start of the process until everything was folded.
    pub seconds: f64,
    /// Rows of the ledger per second, whatever the number of models.
    pub rows_per_s: f64,
    /// All processes of Postgres.
    pub postgres_us: Option<f64>,
    /// Of these, the connections of `millrace project`.
    pub postgres_project_us: Option<f64>,
    /// `millrace project` itself.
    pub project_us: f64,
    /// Write-ahead log per row of the ledger.
    pub wal_bytes: f64,
    /// Rows of the models' tables.
    pub slices: i64,
    /// The size of these tables with their indexes.
    pub size_bytes: i64,
    /// What other processes took of the machine meanwhile, or its host withheld; percent of all cores.
    pub others_percent: Option<f64>,
}

impl Verdicts {
    /// All records.
    pub fn records(&self) -> i64 {
        self.posted + self.duplicate + self.rejected + self.refused + self.parked
    }

    /// What was added since.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            posted: self.posted - earlier.posted,
            duplicate: self.duplicate - earlier.duplicate,
            rejected: self.rejected - earlier.rejected,
            refused: self.refused - earlier.refused,
            parked: self.parked - earlier.parked,
            skipped: self.skipped - earlier.skipped,
        }
    }
}

impl Record {
    /// One line for the person who waits.
    pub fn summary(&self) -> String {
        let figures = &self.figures;
        let us = |us: Option<f64>| us.map_or("not measured".into(), |us| format!("{us:.1} µs"));
        format!(
            "{:.0} tx/s; per transaction ledger {}, Postgres {}, Kafka {}, WAL {:.0} bytes; ledger \
             {:.0} MiB; {}",
            figures.tx_per_s,
            us(Some(figures.ledger_us)),
            us(figures.postgres_us),
            us(figures.kafka_us),
            figures.wal_bytes,
            figures.ledger_peak_mib,
            checks(&self.failures)
        )
    }
}

impl From<Record> for Kept {
    fn from(record: Record) -> Self {
        Self::Drain(Box::new(record))
    }
}

impl From<Rebuild> for Kept {
    fn from(rebuild: Rebuild) -> Self {
        Self::Rebuild(Box::new(rebuild))
    }
}

impl Kept {
    /// A drain.
    pub fn drain(&self) -> Option<&Record> {
        match self {
            Self::Drain(record) => Some(record),
            Self::Rebuild(_) => None,
        }
    }

    /// Folds of read models.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::Drain(_) => None,
            Self::Rebuild(rebuild) => Some(rebuild),
        }
    }

    /// Where and with what.
    pub fn conditions(&self) -> &Conditions {
        match self {
            Self::Drain(record) => &record.conditions,
            Self::Rebuild(rebuild) => &rebuild.conditions,
        }
    }

    /// Checks that failed.
    pub fn failures(&self) -> &[String] {
        match self {
            Self::Drain(record) => &record.failures,
            Self::Rebuild(rebuild) => &rebuild.failures,
        }
    }

    /// One line for the person who waits.
    pub fn summary(&self) -> String {
        match self {
            Self::Drain(record) => format!("{}: {}", record.case.name, record.summary()),
            Self::Rebuild(rebuild) => format!("{}: {}", rebuild.case.name, rebuild.summary()),
        }
    }
}

impl Rebuild {
    fn summary(&self) -> String {
        let folds = self.folds.iter().map(|fold| {
            let (models, workers) = (fold.models.join(" and "), fold.workers);
            format!("{models} by {workers}: {:.0} rows/s", fold.rows_per_s)
        });
        let folds: Vec<_> = folds.collect();
        format!("{}; {}", folds.join(", "), checks(&self.failures))
    }
}

fn checks(failures: &[String]) -> &'static str {
    if failures.is_empty() {
        "all checks hold"
    } else {
        "CHECKS FAILED"
    }
}
