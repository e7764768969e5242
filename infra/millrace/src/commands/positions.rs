//! `millrace positions`.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use millrace_ledger::group::SystemClock;
use millrace_ledger::kafka::assignment::Stop;
use millrace_ledger::kafka::consumer::KafkaLog;
use millrace_ledger::kafka::diagnosis::diagnose;
use millrace_ledger::kafka::log::{Bounds, Log as _};
use millrace_ledger::kafka::settings::Settings;
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::store::Position;
use millrace_ledger::store::positions::{self, Acceptance, Found, Listed};
use millrace_ledger::store::postgres::Postgres;
use millrace_ledger::store::served;

use crate::cli::{Database, Kafka, Operator, Usage, print, printable, reason};
use crate::commands::ledger::GROUP;

/// What to do with positions.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  millrace positions list
  millrace positions accept --partition 3 --reason 'topic recreated after the outage of 3 May'")]
pub enum Positions {
    /// Show where every partition stands, and what was accepted.
    List(List),
    /// Accept that log and database do not fit, and go on in a new incarnation.
    Accept(Accept),
}

/// Flags of `millrace positions list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  millrace positions list")]
pub struct List {
    #[command(flatten)]
    database: Database,
}

/// Flags of `millrace positions accept`.
#[derive(Debug, Args)]
#[command(
    after_help = "A partition stops when its log starts beyond the position, ends before it or holds another record \
than the one that was applied last, and when the database has lost what it had committed. Find out why \
first: to accept is to say that what is missing stays missing. The partition then goes on in a new \
incarnation, within ten seconds, without a restart; who accepted it, when and why stays in millrace.incarnations.

It goes on at the position where the log still has it (records after it are applied again; those whose ids \
are known are duplicates), else at the log's start. --at says otherwise.

Examples:
  millrace positions accept --partition 3 --reason 'records of 3 May are lost: INC-17' --dry-run
  millrace positions accept --partition 3 --reason 'topic recreated' --at start"
)]
pub struct Accept {
    #[command(flatten)]
    kafka: Kafka,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    operator: Operator,
    /// The consumer group of the ledger.
    #[arg(long, env = "MILLRACE_GROUP", default_value = GROUP)]
    group: String,
    /// The partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Why; kept for ever.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Where to go on: position, start, end, or an offset [default: see below].
    #[arg(long)]
    at: Option<At>,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Position,
    Start,
    End,
    Offset(i64),
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "position" => Ok(Self::Position),
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            offset => match offset.parse() {
                Ok(offset @ 0..) => Ok(Self::Offset(offset)),
                _ => Err("position, start, end or an offset of 0 or more"),
            },
        }
    }
}

/// Lists or accepts.
pub async fn run(positions: &Positions) -> anyhow::Result<ExitCode> {
    match positions {
        Positions::List(list) => run_list(list).await?,
        Positions::Accept(accept) => run_accept(accept).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_list(list: &List) -> anyhow::Result<()> {
    let mut connection = list.database.connect_migrated().await?;
    let served = served::read(&mut connection).await?;
    if !served.is_all() {
        print(&format!("this database serves partitions {served}"));
    }
    let found = positions::list(&mut connection).await?;
    if found.is_empty() {
        print("no partition was ever read");
    }
    for Listed {
        partition,
        incarnation,
        position,
        log_end,
        owner,
        state,
        detail,
    } in found
    {
        let log_end = log_end.map_or("unknown".into(), |end| end.to_string());
        print(&format!(
            "partition {partition}\tincarnation {incarnation}\tposition {position}\tlog end {log_end}\t{}\t{}\t{}",
            state.as_deref().unwrap_or("never owned"),
            printable(owner.as_deref().unwrap_or("-")),
            printable(detail.as_deref().unwrap_or_default()),
        ));
    }
    for accepted in positions::accepted(&mut connection).await? {
        print(&format!(
            "accepted\tpartition {}\tincarnation {}\tfrom {} to {}\t{}\t{}\t{}",
            accepted.partition,
            accepted.incarnation,
            accepted.previous_position,
            accepted.start_offset,
            jiff::Timestamp::from_microsecond(accepted.accepted_at.0)
                .unwrap_or_default()
                .strftime("%Y-%m-%d %H:%M:%SZ"),
            printable(&accepted.operator),
            printable(&accepted.reason),
        ));
    }
    Ok(())
}

async fn run_accept(accept: &Accept) -> anyhow::Result<()> {
    let partition = accept.partition;
    let mut connection = accept.database.connect_migrated().await?;
    let served = served::read(&mut connection).await?;
    if !served.has(partition) {
        bail!("partition {partition} is in another database: this one serves {served}");
    }
    let found = positions::read(&mut connection, partition)
        .await?
        .with_context(|| {
            format!("partition {partition} was never read: there is nothing to accept")
        })?;
    let position = found.position;
    let (stop, bounds) = ask_kafka(accept, &found).await?;
    let start_offset = start_offset(accept.at, stop.as_ref(), &position, bounds)?;
    describe(&position, stop.as_ref(), bounds, start_offset);
    if accept.dry_run {
        print("nothing was changed: this was a dry run");
        return Ok(());
    }
    let options = accept.database.database_url.clone();
    let mut store = Postgres::new(options, accept.operator.name());
    let acceptance = Acceptance {
        seen: position,
        start_offset,
        reason: &accept.reason,
        operator: &accept.operator.name(),
        now: SystemClock::default().wall_micros(),
    };
    store.accept(acceptance).await.with_context(|| {
        format!("accepting partition {partition}; nothing was changed, try again")
    })?;
    let incarnation = position.incarnation + 1;
    print(&format!(
        "accepted: partition {partition} goes on at {start_offset} as incarnation {incarnation}"
    ));
    Ok(())
}

async fn ask_kafka(accept: &Accept, found: &Found) -> anyhow::Result<(Option<Stop>, Bounds)> {
    let settings = Settings {
        brokers: accept.kafka.brokers.clone(),
        topic: accept.kafka.topic.clone(),
        group: accept.group.clone(),
        properties: Kafka::properties()?,
    };
    let mut log = KafkaLog::new(&settings).map_err(|e| Usage(format!("Kafka settings: {e}")))?;
    let brokers = &accept.kafka.brokers;
    let asking = || format!("asking Kafka at {brokers} for the topic");
    log.topic().await.with_context(asking)?;
    let answer = diagnose(&mut log, found).await;
    answer.with_context(|| format!("reading the partition's log at {brokers}"))
}

/// Where the new incarnation begins.
fn start_offset(
    at: Option<At>,
    stop: Option<&Stop>,
    position: &Position,
    bounds: Bounds,
) -> anyhow::Result<i64> {
    let offset = match (at, stop) {
        (Some(At::Position), _) | (None, Some(Stop::DatabaseWentBack { .. })) => position.position,
        (Some(At::End), _) => bounds.end,
        (Some(At::Offset(offset)), _) => offset,
        (Some(At::Start), _) | (None, Some(_)) => bounds.start,
        (None, None) => bail!(Usage(format!(
            "partition {} fits its log: there is nothing to accept (where a lane has stopped it for what that \
             lane saw, --at position accepts it)",
            position.partition
        ))),
    };
    // A database that went back may in addition be behind the log's start.
    let offset = if at.is_none() {
        offset.max(bounds.start)
    } else {
        offset
    };
    if (bounds.start..=bounds.end).contains(&offset) {
        return Ok(offset);
    }
    let Bounds { start, end } = bounds;
    bail!(Usage(format!(
        "--at {offset} is not in the log of partition {}, which holds [{start}, {end})",
        position.partition
    )))
}

fn describe(position: &Position, stop: Option<&Stop>, bounds: Bounds, start_offset: i64) {
    let Bounds { start, end } = bounds;
    match stop {
        Some(stop) => print(&format!("found: {stop}")),
        None => print("found: the position fits the log"),
    }
    print(&format!(
        "log: [{start}, {end}); position {}, incarnation {}",
        position.position, position.incarnation
    ));
    let missing = start_offset - position.position;
    if missing > 0 {
        print(&format!(
            "offsets {} to {}: {missing} are left out; records there are never applied",
            position.position,
            start_offset - 1
        ));
    } else if missing < 0 {
        print(&format!(
            "the log is read from {start_offset} on, from before the position; transactions whose ids are \
             known are duplicates"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(at: Option<At>, stop: Option<&Stop>, bounds: (i64, i64)) -> Option<i64> {
        let position = Position {
            partition: 0,
            incarnation: 1,
            position: 10,
            next_seq: 0,
            next_batch: 0,
            chain_head: [0; 32],
            policy_version: 0,
            parked_open: 0,
            anchor: None,
        };
        let (start, end) = bounds;
        start_offset(at, stop, &position, Bounds { start, end }).ok()
    }

    #[test]
    fn what_is_missing_decides_where_it_goes_on() {
        let other = Stop::AnotherLog {
            partition: 0,
            offset: 9,
        };
        let back = Stop::DatabaseWentBack {
            partition: 0,
            incarnation: 1,
            position: 10,
            known_incarnation: 1,
            known: 12,
        };
        assert_eq!(offset(None, None, (0, 20)), None);
        assert_eq!(offset(None, Some(&other), (3, 20)), Some(3));
        assert_eq!(offset(None, Some(&back), (3, 20)), Some(10));
        assert_eq!(offset(None, Some(&back), (11, 20)), Some(11));
        assert_eq!(offset(Some(At::Position), None, (0, 20)), Some(10));
        assert_eq!(offset(Some(At::Position), None, (0, 9)), None);
        assert_eq!(offset(Some(At::End), None, (0, 20)), Some(20));
        assert_eq!(offset(Some(At::Offset(21)), None, (0, 20)), None);
    }
}
