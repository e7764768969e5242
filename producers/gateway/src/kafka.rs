//! The connection that is made again, and whether Kafka is away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_publisher::{Error, Publisher, Receipt, Settings};
use tokio::sync::{Notify, oneshot};

use crate::breaker::Breaker;

/// Between two tries to connect: doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What all requests know of Kafka.
#[derive(Debug, Default)]
pub(crate) struct Kafka {
    state: Mutex<State>,
    /// The current publisher cannot publish any more.
    broken: Notify,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    breaker: Breaker,
    /// Why there is no connection.
    trouble: Option<String>,
}

/// One publisher and which one it is: late answers of a broken one say nothing of its successor.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) publisher: Publisher,
    pub(crate) generation: u64,
}

/// How the connection is.
pub(crate) struct Condition {
    pub(crate) connected: bool,
    pub(crate) away_for: Option<Duration>,
    pub(crate) trouble: Option<String>,
}

impl Kafka {
    /// The connection, for one request; none while Kafka is away.
    pub(crate) fn admit(&self) -> Option<Link> {
        let mut state = self.state();
        let link = state.link.clone()?;
        state.breaker.admits(Instant::now()).then_some(link)
    }

    /// Takes note of the answer to a record that was handed in at `since`.
    pub(crate) fn note(&self, generation: u64, since: Instant, answer: &Result<Receipt, Error>) {
        match answer {
            Ok(_) => self.note_success(),
            Err(Error::FixRecord(_)) => {}
            Err(error) => {
                self.note_failure(since, &with_source(error));
                if matches!(error, Error::Stop(_)) {
                    self.note_broken(generation);
                }
            }
        }
    }

    /// Receipts are missing for what was handed in at `since`.
    pub(crate) fn note_failure(&self, since: Instant, why: &str) {
        if self.state().breaker.failed(since, Instant::now()) {
            tracing::warn!(
                why,
                "kafka does not acknowledge records: requests are answered 503"
            );
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        let state = self.state();
        Condition {
            connected: state.link.is_some(),
            away_for: state.breaker.away_for(Instant::now()),
            trouble: state.trouble.clone(),
        }
    }

    /// Connects, and connects again whenever the publisher is broken. `first` hears of the first try;
    /// when its settings are wrong, this ends.
    pub(crate) async fn keep_connected(
        &self,
        settings: Settings,
        first: oneshot::Sender<Result<(), Error>>,
    ) {
        let mut first = Some(first);
        let mut pause = PAUSE_MIN;
        for generation in 0.. {
            let publisher = loop {
                let answer = Publisher::connect(&settings).await;
                // Whoever started this may have given up waiting.
                match (answer, first.take()) {
                    (Ok(publisher), listener) => {
                        listener.map(|listener| listener.send(Ok(())));
                        break publisher;
                    }
                    (Err(error @ Error::Settings(_)), Some(listener)) => {
                        let _ = listener.send(Err(error));
                        return;
                    }
                    (Err(error), listener) => {
                        self.note_disconnected(&error);
                        listener.map(|listener| listener.send(Ok(())));
                    }
                }
                rest(&mut pause).await;
            };
            self.note_connected(publisher, generation);
            let connected = Instant::now();
            self.broken.notified().await;
            // A topic without permission connects well and breaks at its first record.
            if connected.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            rest(&mut pause).await;
        }
    }

    fn note_success(&self) {
        if let Some(away) = self.state().breaker.succeeded(Instant::now()) {
            tracing::info!(seconds = away.as_secs(), "kafka acknowledges records again");
        }
    }

    fn note_broken(&self, generation: u64) {
        let mut state = self.state();
        let broken = state.link.take_if(|link| link.generation == generation);
        if broken.is_some() {
            state.trouble = Some("the producer is broken; connecting a new one".into());
        }
        drop(state);
        if broken.is_some() {
            self.broken.notify_one();
        }
    }

    fn note_connected(&self, publisher: Publisher, generation: u64) {
        let mut state = self.state();
        tracing::info!(
            topic = publisher.topic(),
            partitions = publisher.partitions(),
            "connected to kafka"
        );
        state.trouble = None;
        state.link = Some(Link {
            publisher,
            generation,
        });
    }

    fn note_disconnected(&self, error: &Error) {
        let text = with_source(error);
        let mut state = self.state();
        if state.trouble.as_ref() != Some(&text) {
            tracing::warn!(
                why = text,
                "cannot connect to kafka; trying again until it works"
            );
            state.trouble = Some(text);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error and what is behind it: [`Error`] does not repeat its source.
fn with_source(error: &Error) -> String {
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}

/// Half the pause and a random part of the other half, so that replicas do not come together.
async fn rest(pause: &mut Duration) {
    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
    *pause = (*pause * 2).min(PAUSE_MAX);
}
