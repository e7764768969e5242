//! Where every partition is, sampled many times a second, and so how long recovery takes.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::servers::connect;

/// Between two samples: the resolution of recovery times.
const PERIOD: Duration = Duration::from_millis(50);

/// After that the connection is made anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Commits that were on their way at the moment of a fault are not the recovery from it.
pub const SETTLE: Duration = Duration::from_millis(100);

/// The positions at a moment.
#[derive(Debug, Clone)]
struct Sample {
    asked: Instant,
    answered: Instant,
    /// By partition; -1 where there is none yet.
    positions: Vec<i64>,
}

/// The positions, as they change; the sampling ends with it.
#[derive(Debug)]
pub struct Positions {
    samples: watch::Receiver<Sample>,
    _sampling: JoinSet<()>,
}

/// How long a fault was felt, from the moment it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Until every partition of the victim went on; none if that took too long.
    pub victim: Option<Duration>,
    /// Until every partition of the topic had gone on.
    pub all: Option<Duration>,
}

impl Positions {
    /// Starts sampling.
    pub fn follow(database: PgConnectOptions, partitions: usize) -> Self {
        let now = Instant::now();
        let none = Sample {
            asked: now,
            answered: now,
            positions: vec![-1; partitions],
        };
        let (sender, samples) = watch::channel(none);
        let mut sampling = JoinSet::new();
        sampling.spawn(sample(database, partitions, sender));
        Self {
            samples,
            _sampling: sampling,
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.samples.borrow().positions.len()
    }

    /// The sum of all positions.
    pub fn applied(&self) -> i64 {
        let sample = self.samples.borrow();
        sample
            .positions
            .iter()
            .map(|position| position.max(&0))
            .sum()
    }

    /// Waits until the partitions that were struck have moved beyond where they were once the fault had taken
    /// effect.
    pub async fn recovery(
        &self,
        partitions: &[usize],
        struck: Instant,
        settled: Instant,
        give_up: Instant,
    ) -> Recovery {
        let mut recovery = Recovery::default();
        let mut samples = self.samples.clone();
        let is_after = |sample: &Sample| sample.asked >= settled;
        let Ok(Ok(before)) = timeout_at(give_up, samples.wait_for(is_after))
            .await
            .map(|sample| sample.map(|s| s.positions.clone()))
        else {
            return recovery;
        };
        while recovery.all.is_none() {
            let Ok(Ok(())) = timeout_at(give_up, samples.changed()).await else {
                break;
            };
            let sample = samples.borrow_and_update();
            let moved = |partition: &usize| sample.positions[*partition] > before[*partition];
            let elapsed = Some(sample.answered - struck);
            if recovery.victim.is_none() && partitions.iter().all(moved) {
                recovery.victim = elapsed;
            }
            if recovery.victim.is_some() && (0..before.len()).all(|partition| moved(&partition)) {
                recovery.all = elapsed;
            }
        }
        recovery
    }
}

async fn sample(database: PgConnectOptions, partitions: usize, samples: watch::Sender<Sample>) {
    let mut connection = None;
    loop {
        if connection.is_none() {
            connection = connect(&database).await.ok();
        }
        if let Some(open) = &mut connection {
            let asked = Instant::now();
            match timeout(ANSWER_TIMEOUT, positions(open, partitions)).await {
                Ok(Ok(positions)) => {
                    samples.send_replace(Sample {
                        asked,
                        answered: Instant::now(),
                        positions,
                    });
                }
                Ok(Err(_)) | Err(_) => connection = None,
            }
        }
        sleep(PERIOD).await;
    }
}

/// By partition; -1 where there is none yet.
async fn positions(connection: &mut PgConnection, partitions: usize) -> sqlx::Result<Vec<i64>> {
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("select partition, position from millrace.positions")
            .fetch_all(connection)
            .await?;
    let mut positions = vec![-1; partitions];
    for (partition, position) in rows {
        let index = usize::try_from(partition).ok();
        if let Some(known) = index.and_then(|index| positions.get_mut(index)) {
            *known = position;
        }
    }
    Ok(positions)
}
