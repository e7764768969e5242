//! `millrace verify`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use millrace_ledger::group::SystemClock;
use millrace_ledger::kafka::settings::Settings;
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::store::positions::Accepted;
use millrace_ledger::verify::checkpoint::Checkpoint;
use millrace_ledger::verify::{self, Counts, Options, Report, Stage};
use sqlx::PgConnection;
use tracing::info;

use crate::cli::{Database, Kafka, Usage, brokers, print, printable};
use crate::commands::checkpoint::{read_file, read_signed};

/// How often progress is shown.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// How many of the latest acceptances are named.
const ACCEPTED_NAMED_MAX: usize = 20;

/// The name that the client needs; the group is never joined.
const GROUP: &str = "millrace-verify";

/// Flags of `millrace verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runs beside live load and locks nothing. From the tables alone it computes every digest and the hash \
chains again, and compares counts, balances and read models. When --brokers says where Kafka is, every \
record that the log still retains is read as well and must have its row, or be a duplicate of an earlier \
one, and what it no longer retains must have been applied. What operators have accepted (millrace positions \
accept) is named. The last line says what was checked. Exit status: 0 when everything holds; 1 with each place where it \
does not, or when something could not be read.

Examples:
  millrace verify --database-url postgres://millrace@db/millrace
  millrace verify --brokers kafka-1:9092
  millrace verify --since 1h
  millrace verify --checkpoint month.json --public-key bank.key.pub"
)]
pub struct Flags {
    #[command(flatten)]
    database: Database,
    /// Kafka brokers, host:port, comma-separated: the log is read too.
    #[arg(long, env = "MILLRACE_BROKERS", value_parser = brokers)]
    brokers: Option<String>,
    /// Check the tables alone, wherever Kafka is.
    #[arg(long)]
    no_log: bool,
    /// A quick run: take on trust what was recorded, as the tables say, before this time
    /// (2026-01-31T00:00:00Z) or longer ago than this (90m, 12h). Balances and read models are not compared.
    #[arg(long, value_parser = since)]
    since: Option<Since>,
    /// A file of millrace checkpoint write: the database must still lead through its chain heads.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// The public key of whoever signed the checkpoint [default: its signature is not checked].
    #[arg(long, requires = "checkpoint")]
    public_key: Option<PathBuf>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Microseconds since 1970.
    At(i64),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(at.as_microsecond()));
    }
    let ago = text.parse::<jiff::SignedDuration>().ok();
    ago.and_then(|ago| Duration::try_from(ago).ok())
        .map(Since::Ago)
        .ok_or_else(|| "a time like 2026-01-31T00:00:00Z or a duration like 90m or 12h".into())
}

impl Since {
    fn micros(self) -> i64 {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
                // There is nothing from before 1970.
                SystemClock::default()
                    .wall_micros()
                    .saturating_sub(ago)
                    .max(0)
            }
        }
    }
}

/// Verifies.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect_migrated().await?;
    let options = Options {
        since: flags.since.map(Since::micros),
        log: log(flags, &mut connection).await?,
        checkpoint: flags.checkpoint()?,
    };
    let start = Instant::now();
    let mut progress = Progress::new(start);
    let show = |report: &Report| progress.show(report);
    let (report, verified) = verify::verify(&mut connection, &options, show).await;
    print_findings(&report);
    verified.map_err(|error| match error {
        verify::Error::Log(millrace_ledger::kafka::log::Error::Settings(why)) => {
            Usage(format!("Kafka settings: {why}")).into()
        }
        verify::Error::Log(_) => {
            let brokers = flags.brokers.as_deref().unwrap_or_default();
            let advice = format!("of Kafka at {brokers}: --no-log checks the tables alone");
            anyhow::Error::new(error).context(advice)
        }
        verify::Error::Database(_) => anyhow::Error::new(error).context("verifying"),
    })?;
    print_accepted(&report.accepted);
    print(&conserved(&report));
    let is_signed = flags.public_key.is_some();
    print(&checked(&report, &options, is_signed, start.elapsed()));
    if flags.wants_log() && report.log.is_none() && report.findings.is_empty() {
        bail!(
            "no ledger has applied a topic to this database, so nothing can be held against Kafka's records: \
             is it the right database? --no-log checks the tables alone"
        );
    }
    Ok(if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Names what failed.
pub fn print_findings(report: &Report) {
    for finding in &report.findings {
        print(&format!(
            "FAILED {}: {}: {}",
            finding.check,
            printable(&finding.place),
            printable(&finding.detail)
        ));
    }
    if report.unnamed > 0 {
        print(&format!("FAILED {} more", report.unnamed));
    }
}

/// Names what operators have let pass.
fn print_accepted(accepted: &[Accepted]) {
    let unnamed = accepted.len().saturating_sub(ACCEPTED_NAMED_MAX);
    if unnamed > 0 {
        print(&format!(
            "ACCEPTED {unnamed} earlier: table millrace.incarnations"
        ));
    }
    for accepted in &accepted[unnamed..] {
        print(&format!(
            "ACCEPTED partition {}, incarnation {}: applied up to offset {}, went on at {}; {} by {:?}: {:?}",
            accepted.partition,
            accepted.incarnation,
            accepted.previous_position,
            accepted.start_offset,
            jiff::Timestamp::from_microsecond(accepted.accepted_at.0).unwrap_or_default(),
            accepted.operator,
            accepted.reason
        ));
    }
}

impl Flags {
    fn wants_log(&self) -> bool {
        self.brokers.is_some() && !self.no_log
    }

    fn checkpoint(&self) -> anyhow::Result<Option<Checkpoint>> {
        Ok(match (&self.checkpoint, &self.public_key) {
            (None, _) => None,
            (Some(file), Some(key)) => Some(read_signed(file, key)?),
            (Some(file), None) => Some(read_file(file)?.1),
        })
    }
}

/// Where the log is, if it is to be read: the topic is the one that the database applies.
async fn log(flags: &Flags, connection: &mut PgConnection) -> anyhow::Result<Option<Settings>> {
    let Some(brokers) = flags.brokers.clone().filter(|_| flags.wants_log()) else {
        return Ok(None);
    };
    let topic = verify::topic(connection)
        .await
        .context("reading the topic")?;
    let Some(topic) = topic else {
        return Ok(None);
    };
    Ok(Some(Settings {
        brokers,
        topic,
        group: GROUP.into(),
        properties: Kafka::properties()?,
    }))
}

/// The sum over all offsets.
fn conserved(report: &Report) -> String {
    let Counts {
        posted,
        duplicate,
        rejected,
        refused,
        parked,
        discarded,
        skipped,
    } = report.counts;
    let unapplied = report.log.map_or(String::new(), |log| {
        format!("; {} not yet applied", log.unapplied)
    });
    format!(
        "{} offsets = {posted} posted + {duplicate} duplicate + {} rejected + {parked} parked + {discarded} \
         discarded + {skipped} skipped{unapplied}",
        report.counts.offsets(),
        rejected + refused,
    )
}

/// What was checked, and whether it holds.
fn checked(report: &Report, options: &Options, is_signed: bool, elapsed: Duration) -> String {
    let sums = if options.since.is_none() {
        let behind = report.behind.iter();
        let behind: Vec<_> = behind
            .map(|(model, outcomes)| format!("{model} {outcomes}"))
            .collect();
        let behind = match behind.join(", ") {
            none if none.is_empty() => none,
            some => format!(" (outcomes behind: {some})"),
        };
        format!("balances and {} read models{behind}", report.read_models)
    } else {
        "not what is before --since, nor balances and read models".into()
    };
    let log = match report.log {
        None => "the log was not read".into(),
        Some(log) => {
            let mut text = format!("{} records of the log", log.records);
            let mut but = |offsets: i64, why| {
                if offsets > 0 {
                    write!(text, " ({offsets} offsets {why})").ok();
                }
            };
            but(log.gone, "are no longer retained");
            but(log.earlier, "are of earlier incarnations: the tables alone");
            text
        }
    };
    let marks = report.marks.map_or(String::new(), |marks| {
        let signature = if is_signed {
            "whose signature is right"
        } else {
            "whose signature was not checked: --public-key"
        };
        format!("; {marks} marks of the checkpoint, {signature}")
    });
    let result = match report.findings.len() as u64 + report.unnamed {
        0 if report.batches == 0 => match options.since {
            None => "nothing has been applied yet".into(),
            Some(_) => "nothing was recorded since then".into(),
        },
        0 if report.accepted.is_empty() => "everything holds".into(),
        0 => format!(
            "everything holds, beside what was accepted {} times",
            report.accepted.len()
        ),
        1 => "1 failure".into(),
        failures => format!("{failures} failures"),
    };
    let served = if report.served.is_all() {
        String::new()
    } else {
        format!(" (those that this database serves: {})", report.served)
    };
    format!(
        "{} of {} partitions{served}, {} batches, {} rows, {sums}; {log}{marks}; in {:.1} s: {result}",
        report.partitions,
        report.partitions_total,
        report.batches,
        report.rows,
        elapsed.as_secs_f64()
    )
}

/// What was shown last, and when.
pub struct Progress {
    start: Instant,
    shown: Instant,
    rows: u64,
}

impl Progress {
    /// Nothing was shown yet.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            shown: start,
            rows: 0,
        }
    }

    /// Shows how far it is, each 2 seconds.
    pub fn show(&mut self, report: &Report) {
        let elapsed = self.shown.elapsed();
        if elapsed < PROGRESS_INTERVAL {
            return;
        }
        let rows = report.rows - self.rows;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rows_per_s = format!("{:.0}", rows as f64 / elapsed.as_secs_f64());
        // The number of rows is not known of a file.
        let share = (100 * report.rows).checked_div(report.rows_total);
        let done = share.map_or("unknown".into(), |share| format!("{share}%"));
        info!(
            stage = match report.stage {
                Stage::Chains => "chains",
                Stage::Counts => "counts",
                Stage::Balances => "balances",
                Stage::ReadModels => "read models",
            },
            partitions = report.partitions,
            batches = report.batches,
            rows = report.rows,
            rows_per_s,
            done,
            records = report.log.map_or(0, |log| log.records),
            seconds = self.start.elapsed().as_secs(),
            "verifying"
        );
        (self.shown, self.rows) = (Instant::now(), report.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_duration() {
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Since::At(1_000_000)));
        assert_eq!(since("1h"), Ok(Since::Ago(Duration::from_hours(1))));
        assert_eq!(since("1h 30m"), Ok(Since::Ago(Duration::from_mins(90))));
        for bad in ["", "yesterday", "-1h", "5"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
