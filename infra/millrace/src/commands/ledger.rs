//! `millrace ledger`.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use millrace_ledger::board::{Board, Picture};
use millrace_ledger::group::{Group, Options};
use millrace_ledger::kafka::settings::Settings;
use millrace_ledger::pipeline::lane::Guards;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::cli::{Admin, Database, Kafka, Usage, duration, reason};
use crate::commands::topics::CleanupPolicy;
use crate::{admin, operator, shutdown, telemetry};

/// The consumer group where none is set.
pub const GROUP: &str = "millrace-ledger";

/// The admin port where none is set.
const ADMIN_PORT: u16 = 9465;

/// How often lanes are looked after.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How often the topic's settings are asked for until they are known.
const TOPIC_INTERVAL: Duration = Duration::from_secs(5);

/// How often in vain before it is told.
const TRIES_UNTOLD: u32 = 6;

/// Flags of `millrace ledger`.
#[derive(Debug, Args)]
#[command(
    after_help = "Run as many replicas as you like, up to one lane per partition. SIGTERM finishes the batch \
in hand and hands the partitions over at once; a second one ends the process at once, and nothing is \
lost either.

Examples:
  millrace ledger --brokers kafka:9092 --database-url postgres://millrace@db/millrace --lanes 2
  millrace ledger --drain-timeout 45s --stall-after 1m"
)]
pub struct Flags {
    #[command(flatten)]
    kafka: Kafka,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    admin: Admin,
    /// The consumer group: all replicas of one database share it, and never those of two databases.
    #[arg(long, env = "MILLRACE_GROUP", default_value = GROUP)]
    group: String,
    /// Lanes of this replica, a thread and a database connection each [default: one per core].
    #[arg(long, env = "MILLRACE_LANES", value_parser = clap::value_parser!(u16).range(1..=1024))]
    lanes: Option<u16>,
    /// This replica's name, shown as the owner of its partitions [default: host name and process].
    #[arg(long, env = "MILLRACE_REPLICA", value_parser = reason)]
    replica: Option<String>,
    /// How long a stop may take: the batch in hand is finished and the group left. Beyond it the process
    /// ends with status 1; nothing is lost then either.
    #[arg(long, env = "MILLRACE_DRAIN_TIMEOUT", default_value = "20s", value_parser = duration)]
    drain_timeout: Duration,
    /// After how long a partition that has records to apply and does not get on is unhealthy and begun
    /// anew.
    #[arg(long, env = "MILLRACE_STALL_AFTER", default_value = "30s", value_parser = duration)]
    stall_after: Duration,
    /// How many of a partition's records may be parked for what they are, in percent, of a batch or of the
    /// last 200 records or so, once that are 50: beyond it the partition stops, for a deploy or a schema is
    /// wrong. 100 parks everything.
    #[arg(long, env = "MILLRACE_PARK_BRAKE_PERCENT", default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=100))]
    park_brake_percent: u8,
}

/// Runs until asked to stop.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let address = flags.admin.address(ADMIN_PORT)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let options = Options {
        kafka: Settings {
            brokers: flags.kafka.brokers.clone(),
            topic: flags.kafka.topic.clone(),
            group: flags.group,
            properties: Kafka::properties()?,
        },
        postgres: flags.database.database_url.clone(),
        lanes: flags.lanes.map_or(cores, usize::from),
        replica: flags.replica.unwrap_or_else(replica_name),
        guards: Guards {
            park_brake_percent: flags.park_brake_percent,
            stall_after: flags.stall_after,
        },
    };
    let metrics = telemetry::init_metrics()?;
    let board = Arc::new(Board::default());
    let group =
        Group::start(&options, &board).map_err(|e| Usage(format!("Kafka settings: {e}")))?;
    let stop = CancellationToken::new();
    let readiness = readiness(Arc::clone(&board));
    let operator = operator::router(options.postgres.clone(), address.ip());
    let server = match admin::serve(address, metrics, readiness, operator, stop.clone()).await {
        Ok(server) => server,
        Err(failure) => {
            // Or the group would wait for these members until their sessions time out.
            let left = tokio::task::spawn_blocking(move || group.stop());
            let _ = tokio::time::timeout(flags.drain_timeout, left).await;
            return Err(failure);
        }
    };
    info!(
        lanes = options.lanes,
        replica = options.replica,
        topic = options.kafka.topic,
        "ledger"
    );

    let outcome = tokio::select! {
        requested = shutdown::requested() => requested,
        failure = watch(&group, &board, &flags.kafka) => Err(failure),
    };
    let stopped = tokio::task::spawn_blocking(move || group.stop());
    let stopped = tokio::time::timeout(flags.drain_timeout, stopped).await;
    stop.cancel();
    let Ok(stopped) = stopped else {
        // Nothing is lost: what is not committed is read again by the next owner.
        let reason = outcome.err().map(|failure| format!("{failure:#}"));
        warn!(
            reason,
            seconds = flags.drain_timeout.as_secs(),
            "the lanes have not left in time: ending without them"
        );
        std::process::exit(1);
    };
    outcome?;
    stopped??;
    server.join_all().await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Ends when something is wrong that waiting does not mend.
async fn watch(group: &Group, board: &Board, kafka: &Kafka) -> anyhow::Error {
    tokio::select! {
        failure = watch_lanes(group, board) => failure,
        Err(failure) = watch_topic(kafka) => failure,
    }
}

/// Ends when a lane has, which none does by itself.
pub async fn watch_lanes(group: &Group, board: &Board) -> anyhow::Error {
    while !group.is_broken() {
        board.tell_silent();
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
    anyhow::anyhow!("a lane has ended by itself")
}

/// Asks until the broker says that the topic keeps every record.
async fn watch_topic(kafka: &Kafka) -> anyhow::Result<()> {
    let admin = kafka.admin()?;
    let mut tries = 0;
    loop {
        match CleanupPolicy::of(&admin, &kafka.topic).await {
            Ok(Some(policy)) => return policy.refuse_compaction(),
            Ok(None) => {}
            Err(error) => debug!(%error, "asking for the topic's settings"),
        }
        // A topic that is missing is told of by the lanes.
        tries += 1;
        if tries == TRIES_UNTOLD {
            let topic = &kafka.topic;
            warn!(
                topic,
                "cannot read the topic's settings yet: asking again until it is known not to be compacted"
            );
        }
        tokio::time::sleep(TOPIC_INTERVAL).await;
    }
}

fn readiness(board: Arc<Board>) -> admin::Readiness {
    admin::known(move || {
        let picture = board.picture();
        (picture.is_ready(), describe(&picture))
    })
}

/// The picture as JSON.
pub fn describe(picture: &Picture) -> Value {
    let partitions: Vec<_> = picture
        .partitions
        .iter()
        .map(|p| {
            json!({
                "partition": p.partition,
                "state": p.state,
                "detail": p.detail,
                "position": p.position,
                "log_start": p.bounds.map(|bounds| bounds.start),
                "log_end": p.bounds.map(|bounds| bounds.end),
                "lag_records": p.lag_records(),
                "lag_seconds": p.lag_micros().map(|micros| micros / 1_000_000),
            })
        })
        .collect();
    let waiting = picture.partitions.iter().filter(|p| p.state != "active");
    let troubles = waiting.map(|p| match p.detail.as_str() {
        "" => format!("partition {} is {}", p.partition, p.state),
        detail => format!("partition {} is {}: {detail}", p.partition, p.state),
    });
    let problems: Vec<_> = picture.problems.iter().cloned().chain(troubles).collect();
    json!({
        "ready": picture.is_ready(),
        "lanes": picture.lanes,
        "problems": problems,
        "partitions": partitions,
    })
}

fn replica_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}-{}",
        if host.is_empty() { "replica" } else { host },
        std::process::id()
    )
}
