//! Publishing at a rate, whatever happens to Kafka.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use millrace_publisher::{Error, Publisher, Settings};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::journal::{Journal, Sending};
use crate::transactions::Transactions;

/// How often what is due is handed in.
const TICK: Duration = Duration::from_millis(5);

/// Every how many-th transaction is followed by one that was acknowledged long before. A prime, so that it
/// is no account's or partition's own.
const AGAIN_EVERY: u64 = 997;

/// How many transactions lie between.
const AGAIN_BEHIND: u64 = 500;

/// Between two tries to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How long Kafka may be away before a record has no answer: longer than any fault.
const DELIVERY_TIMEOUT_MS: &str = "600000";

/// What is shared with the callbacks and the caller.
pub type SharedJournal = Arc<Mutex<Journal>>;

/// What and where to publish.
#[derive(Debug)]
pub struct Load {
    /// What.
    pub transactions: Transactions,
    /// How much a second.
    pub rate: f64,
    /// Where.
    pub settings: Settings,
    /// What became of it.
    pub journal: SharedJournal,
}

/// The journal, whatever happened to a thread that held it.
pub fn locked(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// To the given brokers.
    pub fn new(transactions: Transactions, rate: f64, brokers: &str, topic: &str) -> Self {
        let mut settings = Settings::new(brokers, topic);
        let timeout = ("delivery.timeout.ms", DELIVERY_TIMEOUT_MS);
        let backoff = ("retry.backoff.max.ms", "500");
        let reconnect = ("reconnect.backoff.max.ms", "500");
        for (name, value) in [timeout, backoff, reconnect] {
            settings.properties.push((name.into(), value.into()));
        }
        Self {
            transactions,
            rate,
            settings,
            journal: SharedJournal::default(),
        }
    }

    /// Publishes until `stop` says so, and until all of it is acknowledged. What falls behind while Kafka is away is
    /// caught up with.
    pub async fn run(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut publisher = self.connect().await?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = Instant::now();
        while !*stop.borrow() {
            ticks.tick().await;
            if self.hand_in_due(&publisher, start, &stop).await.is_err() {
                publisher = self.replace(publisher).await?;
            }
        }
        loop {
            publisher.drain().await;
            let unanswered = locked(&self.journal).take_unanswered();
            if unanswered.is_empty() {
                return Ok(());
            }
            publisher = self.replace(publisher).await?;
            // What fails is unanswered again.
            let _ = self.hand_in(&publisher, &unanswered).await;
        }
    }

    /// Hands in once more. After a failure all of them are still unanswered, or were handed in.
    async fn hand_in(&self, publisher: &Publisher, numbers: &[u64]) -> Result<(), Error> {
        for (index, number) in numbers.iter().enumerate() {
            if let Err(error) = self.publish(publisher, *number, Sending::First).await {
                locked(&self.journal).give_back(&numbers[index + 1..]);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn hand_in_due(
        &self,
        publisher: &Publisher,
        start: Instant,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let (unanswered, broken) = {
            let mut journal = locked(&self.journal);
            (journal.take_unanswered(), journal.broken.take())
        };
        self.hand_in(publisher, &unanswered).await?;
        if let Some(broken) = broken {
            return Err(broken);
        }
        let due = self.due(start.elapsed());
        while !*stop.borrow() && locked(&self.journal).handed_in() < due {
            let number = locked(&self.journal).add();
            self.publish(publisher, number, Sending::First).await?;
            if let Some(earlier) = number.checked_sub(AGAIN_BEHIND)
                && number.is_multiple_of(AGAIN_EVERY)
                && locked(&self.journal).place(earlier).is_some()
            {
                self.publish(publisher, earlier, Sending::Again).await?;
            }
        }
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far below 2^53, and not below 0"
    )]
    fn due(&self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.rate) as u64
    }

    async fn publish(
        &self,
        publisher: &Publisher,
        number: u64,
        sending: Sending,
    ) -> Result<(), Error> {
        let journal = Arc::clone(&self.journal);
        let on_delivery = move |answer| locked(&journal).answer(number, sending, answer);
        let transaction = self.transactions.get(number);
        let handed_in = publisher.publish_with(&transaction, on_delivery).await;
        if let Err(error) = &handed_in {
            locked(&self.journal).answer(number, sending, Err(error.clone()));
        }
        handed_in
    }

    /// After an error that this producer does not survive. What is in flight fails at once then.
    async fn replace(&self, broken: Publisher) -> anyhow::Result<Publisher> {
        broken.drain().await;
        drop(broken);
        locked(&self.journal).broken = None;
        self.connect().await
    }

    async fn connect(&self) -> anyhow::Result<Publisher> {
        loop {
            match Publisher::connect(&self.settings).await {
                Ok(publisher) => return Ok(publisher),
                Err(Error::Unreachable { .. }) => sleep(CONNECT_PAUSE).await,
                Err(error) => return Err(error).context("publishing"),
            }
        }
    }
}
