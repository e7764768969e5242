//! The proof that nothing was lost, counted twice or changed: from the tables alone, and from the log as
//! far as that is retained.
//!
//! | module | proves |
//! |---|---|
//! | `walk` | per partition the batches follow each other without a gap, every `seq` has its row, every digest is that of its row's content, and the chain over all of it leads to the stored heads |
//! | `log`, `compare` | each record of the log has the row, or the earlier duplicate, that it must have |
//! | `conservation` | the counts of the batches are those of the tables |
//! | `schema` | codes, keys and triggers are as they were made |
//! | `balances` | balances are the ledger's sums, debits equal credits |
//! | [`checkpoint`] | what was marked at an earlier time is still part of the chain |
//! | [`export`] | the chain again, from a file |
//! | `batches`, `rows`, `row`, `text` | reading and writing the rows |
//!
//! Everything that is walked is append-only and lies before the positions that were read first, so no
//! snapshot is held meanwhile and live load goes on beside it.

mod balances;
mod batches;
pub mod checkpoint;
mod compare;
mod conservation;
pub mod export;
mod log;
mod row;
mod rows;
mod schema;
mod text;
mod walk;

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::chain::Numbers;
use crate::kafka;
use crate::kafka::reader::Reader;
use crate::kafka::settings::Settings;
use crate::store::positions::Accepted;
use crate::store::served::{self, Served};
use crate::verify::batches::{ends, last_before, unaccounted};
use crate::verify::checkpoint::Checkpoint;
use crate::verify::compare::Difference;
use crate::verify::log::Log;
pub use crate::verify::log::LogReport;
use crate::verify::walk::{End, Start, walk};

/// How many places of one check are named: of a partition, an account or a model.
const NAMED_MAX: usize = 10;

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Trust what was recorded before this, microseconds since 1970; balances and read models are then
    /// not compared.
    pub since: Option<i64>,
    /// Where the log is, to be read too.
    pub log: Option<Settings>,
    /// What was marked earlier and must still be there.
    pub checkpoint: Option<Checkpoint>,
}

/// Why there is neither a proof nor a failure of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The log cannot be read.
    #[error("reading the log: {0}")]
    Log(#[from] kafka::log::Error),
}

impl Error {
    fn out_of_step() -> Self {
        let what = "the reader is out of step".into();
        Self::Log(kafka::log::Error::Unavailable(what))
    }
}

/// One place where the proof fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// Partition, batch, seq, offset, account: where to look.
    pub place: String,
    /// What is there and what should be.
    pub detail: String,
}

/// Records and offsets by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the columns are described with the table batches"
)]
pub struct Counts {
    pub posted: i64,
    pub duplicate: i64,
    pub rejected: i64,
    pub refused: i64,
    pub parked: i64,
    pub discarded: i64,
    pub skipped: i64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.posted += other.posted;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.refused += other.refused;
        self.parked += other.parked;
        self.discarded += other.discarded;
        self.skipped += other.skipped;
    }

    /// What a batch counts.
    fn add_numbers(&mut self, numbers: &Numbers) {
        self.add(&Self {
            posted: numbers.posted.into(),
            duplicate: numbers.duplicate.into(),
            rejected: numbers.rejected.into(),
            refused: numbers.refused.into(),
            parked: numbers.parked.into(),
            discarded: numbers.discarded.into(),
            skipped: numbers.skipped,
        });
    }

    /// Offsets of the log.
    pub fn offsets(&self) -> i64 {
        self.posted
            + self.duplicate
            + self.rejected
            + self.refused
            + self.parked
            + self.discarded
            + self.skipped
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            posted,
            duplicate,
            rejected,
            refused,
            parked,
            discarded,
            skipped,
        } = self;
        write!(
            f,
            "{posted} posted, {duplicate} duplicate, {rejected} rejected, {refused} refused, {parked} parked, \
             {discarded} discarded, {skipped} skipped"
        )
    }
}

/// What is being checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// The chains, and the log beside them.
    #[default]
    Chains,
    /// What the batches and the tables count.
    Counts,
    /// Balances against the ledger.
    Balances,
    /// Read models against their folds.
    ReadModels,
}

/// What was checked and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is being checked.
    pub stage: Stage,
    /// Partitions walked.
    pub partitions: usize,
    /// Of how many that the database serves; none before a lane has seen the topic.
    pub partitions_total: usize,
    /// Which partitions the database serves.
    pub served: Served,
    /// Batches whose chain was computed again.
    pub batches: u64,
    /// Rows whose digest or bytes went into it.
    pub rows: u64,
    /// Of how many.
    pub rows_total: u64,
    /// What the batches that were walked count.
    pub counts: Counts,
    /// The log, if it was read.
    pub log: Option<LogReport>,
    /// What operators have accepted, oldest first.
    pub accepted: Vec<Accepted>,
    /// Partitions whose mark in the checkpoint was looked for.
    pub marks: Option<usize>,
    /// Read models compared with their folds.
    pub read_models: usize,
    /// Those that lack stored outcomes yet, and how many.
    pub behind: Vec<(&'static str, i64)>,
    /// Failures, at most [`NAMED_MAX`] of each check; empty is the proof.
    pub findings: Vec<Finding>,
    /// How many more failures there are.
    pub unnamed: u64,
}

impl Report {
    fn find(&mut self, check: &'static str, place: String, detail: String) {
        let subject = |place: &str| place.split(',').next().map(str::to_owned);
        let alike = |f: &&Finding| f.check == check && subject(&f.place) == subject(&place);
        let named = self.findings.iter().filter(alike).count();
        if named < NAMED_MAX {
            self.findings.push(Finding {
                check,
                place,
                detail,
            });
        } else {
            self.unnamed += 1;
        }
    }

    fn differ(&mut self, partition: i32, differences: Vec<Difference>) {
        for Difference { offset, detail } in differences {
            let place = format!("partition {partition}, offset {offset}");
            self.find("log", place, detail);
        }
    }
}

/// Checks. `progress` is called with the report so far, about once per 20,000 rows. What was found until an
/// error is in the report.
pub async fn verify(
    connection: &mut PgConnection,
    options: &Options,
    mut progress: impl FnMut(&Report),
) -> (Report, Result<(), Error>) {
    let mut report = Report::default();
    let result = check(connection, options, &mut report, &mut progress).await;
    (report, result)
}

async fn check(
    connection: &mut PgConnection,
    options: &Options,
    report: &mut Report,
    progress: &mut impl FnMut(&Report),
) -> Result<(), Error> {
    if let Some(checkpoint) = &options.checkpoint {
        checkpoint::compare(connection, checkpoint, report).await?;
    }
    report.served = served::read(connection).await?;
    let walks = plan(connection, options.since).await?;
    report.rows_total = walks
        .iter()
        .map(|(start, end)| u64::try_from(end.next_seq - start.next_seq).unwrap_or(0))
        .sum();
    let mut log = match &options.log {
        None => None,
        Some(settings) => open_log(connection, settings, &walks, report).await?,
    };
    for (start, end) in &walks {
        walk(connection, (start, end), log.as_mut(), report, progress).await?;
        report.partitions += 1;
    }
    if let Some(log) = &mut log {
        log.finish_absent(connection, report).await?;
    }
    for row in unaccounted(connection, 1 + i64::try_from(NAMED_MAX).unwrap_or(0)).await? {
        let what = if row.table == "batches" {
            "batch"
        } else {
            "seq"
        };
        report.find(
            "unaccounted rows",
            format!("partition {}, {what} {}", row.partition, row.number),
            format!("no batch accounts for this row of {}", row.table),
        );
    }
    check_served(connection, &walks, report).await?;
    report.stage = Stage::Counts;
    progress(report);
    conservation::count(connection, &walks, report).await?;
    conservation::read_accepted(connection, report).await?;
    schema::compare(connection, report).await?;
    if options.since.is_none() {
        compare_sums(connection, report, progress).await?;
    }
    Ok(())
}

/// Where each partition's walk begins and ends.
async fn plan(
    connection: &mut PgConnection,
    since: Option<i64>,
) -> Result<Vec<(Start, End)>, sqlx::Error> {
    let mut walks = Vec::new();
    for end in ends(connection).await? {
        let trusted = match since {
            None => None,
            Some(since) => last_before(connection, &end, since).await?,
        };
        walks.push((trusted.unwrap_or(Start::GENESIS), end));
    }
    Ok(walks)
}

/// Connects to the log, if it is the one that the database applies.
async fn open_log(
    connection: &mut PgConnection,
    settings: &Settings,
    walks: &[(Start, End)],
    report: &mut Report,
) -> Result<Option<Log>, Error> {
    let stored = sqlx::query!("select topic, cluster_id, partitions from millrace.log")
        .fetch_optional(connection)
        .await?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    let reader = match Reader::connect(settings).await {
        Err(kafka::log::Error::TopicMissing(name)) => {
            let detail = format!("it is not there at {}", settings.brokers);
            report.find("log", format!("topic {name}"), detail);
            return Ok(None);
        }
        reader => reader?,
    };
    let topic = reader.topic();
    let is_another = topic.name != stored.topic
        || topic.partitions != stored.partitions
        || matches!((&topic.cluster_id, &stored.cluster_id), (Some(a), Some(b)) if a != b);
    if is_another {
        report.find(
            "log",
            format!("topic {}", topic.name),
            format!(
                "it has {} partitions on cluster {}; the database applies topic {} with {} on {}",
                topic.partitions,
                topic.cluster_id.as_deref().unwrap_or("unknown"),
                stored.topic,
                stored.partitions,
                stored.cluster_id.as_deref().unwrap_or("unknown")
            ),
        );
        return Ok(None);
    }
    let mut unknown = walks.iter().map(|(_, end)| end.partition);
    if let Some(partition) = unknown.find(|partition| !(0..topic.partitions).contains(partition)) {
        let detail = format!(
            "there is a position, and the topic has {} partitions",
            topic.partitions
        );
        report.find("positions", format!("partition {partition}"), detail);
        return Ok(None);
    }
    report.log = Some(LogReport::default());
    Ok(Some(Log::new(reader, walks, &report.served)))
}

/// Positions are of the database's topic, and of partitions that it serves.
async fn check_served(
    connection: &mut PgConnection,
    walks: &[(Start, End)],
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let count = served::topic_partitions(connection).await?;
    report.partitions_total = count.map_or(0, |count| report.served.of(count).count());
    if !walks.is_empty() && count.is_none() {
        let detail = "there are positions, and no topic that they belong to";
        report.find("positions", "table log".into(), detail.into());
    }
    let served = report.served.clone();
    if let Some(partition) = count.and_then(|count| served.beyond(count)) {
        let detail = format!("the database serves {served}, which the topic does not have");
        report.find("positions", format!("partition {partition}"), detail);
    }
    let strays = walks.iter().map(|(_, end)| end.partition);
    for partition in strays.filter(|partition| !served.has(*partition)) {
        let detail = format!("there is a position, and the database serves {served} only");
        report.find("positions", format!("partition {partition}"), detail);
    }
    Ok(())
}

async fn compare_sums(
    connection: &mut PgConnection,
    report: &mut Report,
    progress: &mut impl FnMut(&Report),
) -> Result<(), sqlx::Error> {
    report.stage = Stage::Balances;
    progress(report);
    balances::compare_balances(connection, report).await?;
    report.stage = Stage::ReadModels;
    progress(report);
    let verified = millrace_readmodels::verify(connection).await?;
    for difference in verified.differences {
        report.find("read model", difference.place(), difference.to_string());
    }
    report.behind = verified.behind;
    report.read_models = millrace_readmodels::all().len();
    Ok(())
}

/// The topic that the database applies; none before a lane has seen it.
pub async fn topic(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("select topic from millrace.log")
        .fetch_optional(connection)
        .await
}
