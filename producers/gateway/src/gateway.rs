//! Starting, readiness, draining; what all requests share.

use std::sync::Arc;
use std::time::Duration;

use millrace_publisher::Error;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::kafka::Kafka;
use crate::metering::Meters;
use crate::upload::Memory;
use crate::{Limits, Options};

/// Wrong settings are found at once; a broker that does not answer is waited for in the background.
const FIRST_TRY_WAIT: Duration = Duration::from_secs(2);

/// Takes transactions and publishes them. Clones share one connection and all bounds.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) kafka: Arc<Kafka>,
    /// One permit for each item that Kafka has not answered.
    pub(crate) pending: Arc<Semaphore>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) meters: Meters,
}

impl Gateway {
    /// Connects in the background, for as long as the set of tasks is kept. A broker that is away does
    /// not keep the gateway from starting: requests are answered 503 until it is there.
    ///
    /// # Errors
    /// [`Error::Settings`] when a bound or a property of the publisher is wrong.
    pub async fn start(options: Options) -> Result<(Self, JoinSet<()>), Error> {
        options.check()?;
        let kafka = Arc::new(Kafka::default());
        let (first, first_answer) = oneshot::channel();
        let mut tasks = JoinSet::new();
        let (connection, settings) = (Arc::clone(&kafka), options.publisher_settings());
        tasks.spawn(async move { connection.keep_connected(settings, first).await });
        if let Ok(Ok(answer)) = tokio::time::timeout(FIRST_TRY_WAIT, first_answer).await {
            answer?;
        }
        let meters = Meters::new();
        let limits = options.limits;
        let shared = Shared {
            limits,
            kafka,
            pending: Arc::new(Semaphore::new(limits.pending_items_max)),
            memory: Memory::new(limits.buffered_bytes_max, meters.buffered.clone()),
            meters,
        };
        Ok((Self(Arc::new(shared)), tasks))
    }

    /// Whether transactions can be accepted now, and how the connection is.
    pub fn readiness(&self) -> (bool, Value) {
        let condition = self.0.kafka.condition();
        let mut problems: Vec<String> = condition.trouble.into_iter().collect();
        if !condition.connected && problems.is_empty() {
            problems.push("not connected to kafka yet".into());
        }
        if let Some(away) = condition.away_for {
            let seconds = away.as_secs();
            problems.push(format!(
                "kafka has not acknowledged a record for {seconds} s"
            ));
        }
        let detail = json!({
            "connected": condition.connected,
            "kafka_away_seconds": condition.away_for.map(|away| away.as_secs()),
            "pending_items": self.0.limits.pending_items_max - self.0.pending.available_permits(),
            "problems": problems,
        });
        (problems.is_empty(), detail)
    }

    /// Waits until Kafka has answered every item, bounded by the delivery timeout. Requests that come
    /// meanwhile are answered 429.
    pub async fn drain(&self) {
        let all = u32::try_from(self.0.limits.pending_items_max).expect("the limit was checked");
        let permits = self.0.pending.acquire_many(all).await;
        drop(permits.expect("the permits are never closed"));
    }
}
