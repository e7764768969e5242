//! The lanes of one process: a thread, a member of the group and a connection each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tracing::{error, info, info_span};

use crate::board::Board;
use crate::kafka::consumer::KafkaLog;
use crate::kafka::log::{self, Log as _};
use crate::kafka::settings::Settings;
use crate::observe;
use crate::pipeline::lane::{Clock, Guards, Lane};
use crate::record::Intake;
use crate::store::postgres::Postgres;

/// What the ledger group of one process needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to reach Kafka.
    pub kafka: Settings,
    /// How to reach Postgres.
    pub postgres: PgConnectOptions,
    /// How many lanes; at least 1. One beyond the partition count waits without joining the group.
    pub lanes: usize,
    /// This replica's name, shown as the owner of its partitions.
    pub replica: String,
    /// When lanes stop trusting a partition.
    pub guards: Guards,
}

/// How often a lane that waits asks for the partition count, and looks whether it is to stop.
const SURPLUS_INTERVAL: Duration = Duration::from_secs(5);
const SURPLUS_LOOK: Duration = Duration::from_millis(100);

/// The real clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall_micros(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The running lanes.
pub struct Group {
    lanes: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Group {
    /// Starts the lanes; each shows its partitions on the board.
    pub fn start(options: &Options, board: &Board) -> Result<Self, log::Error> {
        let stop = Arc::new(AtomicBool::new(false));
        observe::begin();
        let mut lanes = Vec::with_capacity(options.lanes);
        for number in 0..options.lanes {
            // Made here, so that a wrong property is an error before any work begins.
            let log = KafkaLog::new(&options.kafka)?;
            let owner = format!("{}/{number}", options.replica);
            let store = Postgres::new(options.postgres.clone(), owner);
            let board = board.lane(number);
            let stop = Arc::clone(&stop);
            let guards = options.guards;
            let run = move || run_lane(number, log, store, board, guards, &stop);
            let lane = thread::Builder::new()
                .name(format!("lane-{number}"))
                .spawn(run);
            lanes.push(lane.map_err(|e| log::Error::Unavailable(format!("starting a lane: {e}")))?);
        }
        Ok(Self { lanes, stop })
    }

    /// Whether a lane has ended by itself, which none should.
    pub fn is_broken(&self) -> bool {
        self.lanes.iter().any(JoinHandle::is_finished)
    }

    /// Lets every lane finish the batch in hand and leave the group. Blocks until they have.
    pub fn stop(self) -> Result<(), Broken> {
        self.stop.store(true, Ordering::Release);
        let broken = self
            .lanes
            .into_iter()
            .map(JoinHandle::join)
            .filter(Result::is_err)
            .count();
        if broken == 0 {
            Ok(())
        } else {
            Err(Broken(broken))
        }
    }
}

/// Lanes that panicked: a defect. What they had not committed will be read again.
#[derive(Debug, thiserror::Error)]
#[error("{0} lanes have panicked")]
pub struct Broken(usize);

fn run_lane(
    number: usize,
    log: KafkaLog,
    store: Postgres,
    board: Board,
    guards: Guards,
    stop: &AtomicBool,
) {
    let _span = info_span!("lane", number).entered();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(failure) => {
            error!(error = %failure, "cannot start the lane's runtime");
            return;
        }
    };
    let seed = u64::from(std::process::id()) << 16 | number as u64;
    let stop = || stop.load(Ordering::Acquire);
    runtime.block_on(async {
        let mut log = log;
        if !may_join(number, &mut log, &board, stop).await {
            return;
        }
        if let Err(failure) = log.join() {
            error!(error = %failure, "cannot join the group");
            return;
        }
        let lane = Lane::new(log, store, SystemClock::default(), board, seed);
        let mut lane = lane.with_guards(guards);
        lane.run(stop).await;
    });
}

/// Waits until the topic has a partition for this lane: one beyond the partition count would only make
/// every rebalance longer. False when the process stops first.
async fn may_join(
    number: usize,
    log: &mut KafkaLog,
    board: &Board,
    stop: impl Fn() -> bool,
) -> bool {
    // The first lane always has one, and says what is wrong when there is no topic.
    if number == 0 {
        return true;
    }
    let mut told = false;
    let mut asked: Option<Instant> = None;
    while !stop() {
        if asked.is_none_or(|at| at.elapsed() >= SURPLUS_INTERVAL) {
            asked = Some(Instant::now());
            if let Ok(topic) = log.topic().await {
                if usize::try_from(topic.partitions).is_ok_and(|count| number < count) {
                    return true;
                }
                if !std::mem::replace(&mut told, true) {
                    let partitions = topic.partitions;
                    info!(partitions, "more lanes than partitions: this one waits");
                }
                board.publish(Vec::new(), &[]);
            }
        }
        // Polled, or the client's own events would pile up.
        log.poll(SURPLUS_LOOK, &mut Intake::default()).await;
    }
    false
}
