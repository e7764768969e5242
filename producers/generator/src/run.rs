//! Publishing a workload, at a rate or flat out.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_publisher::{Error as PublishError, Publisher, Receipt};
use millrace_schemas::Transaction;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::workload::{Invalid, Workload};

/// Between two reports of progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);

/// Why a workload was not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The workload cannot be generated: correct it.
    #[error("the workload is wrong")]
    Invalid(#[from] Invalid),
    /// Nothing more can be published. What was handed in before is settled.
    #[error("publishing stopped after {handed_in} transactions")]
    Stopped {
        /// How many were handed in.
        handed_in: u64,
        /// Why.
        source: PublishError,
    },
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Transactions handed to the publisher.
    pub handed_in: u64,
    /// Of these, acknowledged by Kafka.
    pub acknowledged: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Transactions of the workload.
    pub count: u64,
    /// Since the start.
    pub elapsed: Duration,
    /// How far the last one handed in was behind its time; zero without a rate.
    pub lateness: Duration,
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Transactions handed to the publisher: all of the workload, unless it was stopped.
    pub handed_in: u64,
    /// Of these, acknowledged by Kafka.
    pub acknowledged: u64,
    /// Of these, failed; they may be in the log all the same.
    pub failed: u64,
    /// The first failure.
    pub first_error: Option<PublishError>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Acknowledged transactions by partition.
    pub partitions: Vec<u64>,
    /// How far transactions were handed in behind their times, at worst; zero without a rate.
    pub lateness_max: Duration,
    /// The same on average.
    pub lateness_mean: Duration,
}

impl Summary {
    /// Acknowledged transactions per second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn records_per_second(&self) -> f64 {
        self.acknowledged as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Publishes the workload and waits for every answer.
///
/// With a rate it is an open loop: each transaction has its time, counted from the start. Slow
/// acknowledgements do not move it; a publisher that takes no more does, and the lateness shows it. A
/// lateness of up to a millisecond is the timer's.
/// `progress` is called a few times a second. When `stop` completes nothing more is handed in; what is
/// in flight is still waited for, at most for the publisher's delivery timeout.
///
/// # Errors
/// [`Error::Invalid`] before anything is published; [`Error::Stopped`] when nothing more can be. A
/// failure of single records is counted in the summary.
pub async fn run(
    publisher: &Publisher,
    workload: &Workload,
    progress: impl FnMut(Progress),
    stop: impl Future<Output = ()>,
) -> Result<Summary, Error> {
    let transactions = workload.transactions()?;
    let start = Instant::now();
    let mut run = Run {
        publisher,
        rate: workload.rate,
        count: workload.count,
        start,
        handed_in: 0,
        lateness: Lateness::default(),
        answers: Arc::new(Answers::new(publisher.partitions())),
        progress,
        progress_due: start,
    };
    let handed_in = run.hand_in(transactions, pin!(stop)).await;
    run.reporting(publisher.drain()).await;
    run.report();
    match handed_in {
        Ok(()) => Ok(run.summary()),
        Err(source) => Err(Error::Stopped {
            handed_in: run.handed_in,
            source,
        }),
    }
}

struct Run<'a, F> {
    publisher: &'a Publisher,
    rate: Option<f64>,
    count: u64,
    start: Instant,
    handed_in: u64,
    lateness: Lateness,
    answers: Arc<Mutex<Answers>>,
    progress: F,
    progress_due: Instant,
}

impl<F: FnMut(Progress)> Run<'_, F> {
    async fn hand_in(
        &mut self,
        transactions: impl Iterator<Item = Transaction<'static>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), PublishError> {
        for transaction in transactions {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                handed_in = self.publish(&transaction) => handed_in?,
            }
        }
        Ok(())
    }

    async fn publish(&mut self, transaction: &Transaction<'_>) -> Result<(), PublishError> {
        let due = self.due();
        if let Some(due) = due
            && due > Instant::now()
        {
            self.reporting(sleep_until(due)).await;
        }
        let answers = Arc::clone(&self.answers);
        let on_delivery = move |answer| locked(&answers).add(answer);
        let publisher = self.publisher;
        self.reporting(publisher.publish_with(transaction, on_delivery))
            .await?;
        self.handed_in += 1;
        let now = Instant::now();
        if let Some(due) = due {
            self.lateness.add(now.duration_since(due));
        }
        if now >= self.progress_due {
            self.report();
        }
        Ok(())
    }

    /// Waits, and goes on reporting.
    async fn reporting<T>(&mut self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        loop {
            match timeout_at(self.progress_due, &mut waiting).await {
                Ok(done) => return done,
                Err(_) => self.report(),
            }
        }
    }

    /// When the next transaction is to be handed in: counted from the start, so nothing adds up.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn due(&self) -> Option<Instant> {
        let after = Duration::from_secs_f64(self.handed_in as f64 / self.rate?);
        Some(self.start + after)
    }

    fn report(&mut self) {
        let (acknowledged, failed) = {
            let answers = locked(&self.answers);
            (answers.acknowledged(), answers.failed)
        };
        (self.progress)(Progress {
            handed_in: self.handed_in,
            acknowledged,
            failed,
            count: self.count,
            elapsed: self.start.elapsed(),
            lateness: self.lateness.last,
        });
        self.progress_due = Instant::now() + PROGRESS_PERIOD;
    }

    fn summary(&self) -> Summary {
        let elapsed = self.start.elapsed();
        let answers = locked(&self.answers).clone();
        Summary {
            handed_in: self.handed_in,
            acknowledged: answers.acknowledged(),
            failed: answers.failed,
            first_error: answers.first_error,
            elapsed,
            partitions: answers.partitions,
            lateness_max: self.lateness.max,
            lateness_mean: self.lateness.mean(),
        }
    }
}

/// How far hand-ins were behind their times.
#[derive(Default)]
struct Lateness {
    last: Duration,
    max: Duration,
    sum: Duration,
    count: u64,
}

impl Lateness {
    fn add(&mut self, lateness: Duration) {
        self.last = lateness;
        self.max = self.max.max(lateness);
        self.sum += lateness;
        self.count += 1;
    }

    fn mean(&self) -> Duration {
        let nanos = self.sum.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos_u128(nanos)
    }
}

/// The answers to this run's transactions. The publisher's totals may hold other callers' too.
#[derive(Clone, Default)]
struct Answers {
    /// Acknowledged, by partition.
    partitions: Vec<u64>,
    failed: u64,
    first_error: Option<PublishError>,
}

impl Answers {
    fn new(partitions: i32) -> Mutex<Self> {
        Mutex::new(Self {
            partitions: vec![0; index(partitions)],
            ..Self::default()
        })
    }

    fn add(&mut self, answer: Result<Receipt, PublishError>) {
        match answer {
            Ok(receipt) => {
                let partition = index(receipt.partition);
                // The topic may have grown since the publisher connected.
                if partition >= self.partitions.len() {
                    self.partitions.resize(partition + 1, 0);
                }
                self.partitions[partition] += 1;
            }
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.partitions.iter().sum()
    }
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).expect("partitions are counted from 0")
}

fn locked(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}
