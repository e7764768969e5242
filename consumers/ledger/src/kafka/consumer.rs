//! Kafka behind the [`Log`] trait: a `BaseConsumer` on the lane's own thread.
//!
//! Rebalance callbacks run inside `poll`. They complete the rebalance at once, without a partition, and
//! queue an event: the group never waits for the database. librdkafka is given a partition by
//! [`Log::start`], always with the database's offset, and loses it by [`Log::hold`]. Nothing is ever
//! paused (the flag would outlive a revocation) and no logical offset is ever used (librdkafka would
//! look it up and jump there later). Calls here block their thread for a bounded time: a lane has
//! nothing else to do meanwhile, and the broker sees heartbeats from librdkafka's own thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use crate::kafka::log::{Bounds, Error, Event, Hint, Log, Topic};
use crate::kafka::mailbox::{Context, Ended, Mailbox, give_back};
use crate::kafka::settings::{Settings, refused};
use crate::record::{Incoming, Intake};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for a partition's bounds. Short: one without a leader answers nothing, and others wait.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a hint may be unanswered before another follows all the same.
const HINT_ANSWER_MAX: Duration = Duration::from_secs(5);

/// After a small batch a lane rests half as long as the batch took: a batch costs as much as some fifty records, and at
/// thousands of records a second this is the difference between a dozen and some dozens in each. Where processors are
/// busy, or a batch has many partitions, it takes longer, and the next has more in it.
const REST_DIVISOR: u32 = 2;

/// But small batches begin no further apart than this: where a batch takes long because the database is far away,
/// waiting saves nothing.
const PACE_MAX: Duration = Duration::from_millis(8);

/// And as much further for each record of the last: the more comes in, the more a larger batch saves.
const PACE_MAX_PER_RECORD: Duration = Duration::from_micros(50);

/// A batch of more records is not small.
const PACED_RECORDS_MAX: usize = 1_000;

/// A rebalance takes a few seconds; beyond, it is a problem that readiness tells.
const OUTSIDE_MAX_S: u32 = 8;

/// One member of the consumer group.
pub struct KafkaLog {
    consumer: BaseConsumer<Context>,
    mailbox: Arc<Mailbox>,
    topic: String,
    /// The partitions that librdkafka has been given.
    running: BTreeSet<i32>,
    /// The last hint.
    hinted: Vec<Hint>,
    hinted_at: Instant,
    /// What came while the last hint had no answer.
    put_off: Vec<Hint>,
    /// When the last batch was handed out, if it was a small one, and how many records it had.
    last_small: Option<(Instant, u32)>,
}

impl Drop for KafkaLog {
    /// Whoever stops leaves the last word behind.
    fn drop(&mut self) {
        let mut last = std::mem::take(&mut self.put_off);
        if last.is_empty() && !self.mailbox.hinting().is_empty() {
            last = std::mem::take(&mut self.hinted);
        }
        if !last.is_empty() {
            self.commit(&last);
        }
    }
}

impl KafkaLog {
    /// Makes the client, which is no member of the group yet. The broker need not be there.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let mailbox = Arc::new(Mailbox::default());
        let context = Context {
            mailbox: Arc::clone(&mailbox),
            topic: settings.topic.clone(),
        };
        let consumer: BaseConsumer<Context> = settings
            .config()?
            .create_with_context(context)
            .map_err(|error| refused(&error))?;
        Ok(Self {
            consumer,
            mailbox,
            topic: settings.topic.clone(),
            running: BTreeSet::new(),
            hinted: Vec::new(),
            hinted_at: Instant::now(),
            put_off: Vec::new(),
            last_small: None,
        })
    }

    /// Joins the group.
    pub fn join(&self) -> Result<(), Error> {
        let joined = self.consumer.subscribe(&[&self.topic]);
        joined.map_err(|error| unavailable(&error))
    }

    fn take_event(&mut self) -> Option<Event> {
        let event = self.mailbox.events().pop_front()?;
        match &event {
            Event::Assigned(_) => {
                self.mailbox.works();
                // Told before the first statistics come.
                self.mailbox.broker_up.store(true, Ordering::Relaxed);
            }
            Event::Revoked(partitions) => {
                for partition in partitions {
                    self.forget(*partition);
                }
                // Others hint those now.
                self.put_off.clear();
                self.hinted.clear();
                self.mailbox.hinting().clear();
            }
            Event::OutOfRange(_) | Event::Broken(_) => {}
        }
        Some(event)
    }

    /// Nothing more of the partition is handed out.
    fn forget(&mut self, partition: i32) {
        self.running.remove(&partition);
        self.mailbox.ended().remove(&partition);
    }

    fn on_error(&self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(partition) => {
                self.mailbox.ended().insert(*partition, Ended::Now);
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                // The error names no partition: every running one is checked again.
                let out_of_range = self.running.iter().copied().map(Event::OutOfRange);
                self.mailbox.events().extend(out_of_range);
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ) => self.mailbox.topic_missing.store(true, Ordering::Relaxed),
            KafkaError::MessageConsumptionFatal(code) => {
                let broken = Event::Broken(format!("the Kafka client cannot go on: {code}"));
                self.mailbox.events().push_back(broken);
            }
            error => self.mailbox.note(error, ""),
        }
    }

    /// Without waiting for the answer.
    fn commit(&mut self, hints: &[Hint]) {
        let offsets = hints
            .iter()
            .map(|hint| (hint.partition, Offset::Offset(hint.offset)));
        let list = self.list(offsets);
        for (mut element, hint) in list.elements().into_iter().zip(hints) {
            element.set_metadata(metadata(hint));
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            debug!(%error, "cannot hint the offsets");
            return;
        }
        self.put_off.clear();
        self.hinted = hints.to_vec();
        self.hinted_at = Instant::now();
        *self.mailbox.hinting() = hints.iter().map(|h| (h.partition, h.offset)).collect();
    }

    fn list(&self, partitions: impl IntoIterator<Item = (i32, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            // Only an offset below -1000 000 000 could fail here.
            if let Err(error) = list.add_partition_offset(&self.topic, partition, offset) {
                warn!(%error, partition, "not an offset");
            }
        }
        list
    }

    /// Takes in what is there; waits for the first record or event.
    fn hand_out(&mut self, mut wait: Duration, intake: &mut Intake) -> Option<Event> {
        loop {
            if self.mailbox.ending.load(Ordering::Relaxed) {
                self.mailbox.take_ends(intake);
            }
            if let Some(event) = self.take_event() {
                return Some(event);
            }
            if intake.is_full() {
                return None;
            }
            let polled = self.consumer.poll(wait);
            if self.mailbox.ending.load(Ordering::Relaxed) {
                self.mailbox.handed_out(polled.is_none());
            }
            match polled {
                None if self.mailbox.events().is_empty() => {
                    self.mailbox.take_ends(intake);
                    return None;
                }
                None => {}
                Some(Ok(message)) => {
                    if self.mailbox.troubled.load(Ordering::Relaxed) {
                        self.mailbox.works();
                    }
                    push(intake, &message);
                }
                Some(Err(error)) => self.on_error(&error),
            }
            wait = Duration::ZERO;
        }
    }
}

impl Log for KafkaLog {
    async fn poll(&mut self, wait: Duration, intake: &mut Intake) -> Option<Event> {
        if let Some((begun, records)) = self.last_small.take() {
            let pace = pace(begun.elapsed(), records);
            tokio::time::sleep_until((begun + pace).into()).await;
        }
        let event = self.hand_out(wait, intake);
        if (1..=PACED_RECORDS_MAX).contains(&intake.len()) {
            let records = u32::try_from(intake.len()).unwrap_or(u32::MAX);
            self.last_small = Some((Instant::now(), records));
        }
        event
    }

    async fn topic(&mut self) -> Result<Topic, Error> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let found = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == self.topic);
        let partitions = found.map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Error::TopicMissing(self.topic.clone()));
        }
        self.mailbox.topic_missing.store(false, Ordering::Relaxed);
        Ok(Topic {
            name: self.topic.clone(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            cluster_id: self.consumer.client().fetch_cluster_id(REQUEST_TIMEOUT),
        })
    }

    async fn bounds(&mut self, partition: i32) -> Result<Bounds, Error> {
        let (start, end) = self
            .consumer
            .fetch_watermarks(&self.topic, partition, BOUNDS_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let bounds = Bounds { start, end };
        self.mailbox.bounds().insert(partition, bounds);
        Ok(bounds)
    }

    fn problem(&self) -> Option<Error> {
        if let Some(refusal) = self.mailbox.refusal().clone() {
            return Some(Error::Unavailable(refusal));
        }
        if !self.mailbox.broker_up.load(Ordering::Relaxed) {
            let why = self.mailbox.last_error();
            let colon = if why.is_empty() { "" } else { ": " };
            let problem = format!("no Kafka broker is connected{colon}{why}");
            return Some(Error::Unavailable(problem));
        }
        if self.mailbox.topic_missing.load(Ordering::Relaxed) {
            return Some(Error::TopicMissing(self.topic.clone()));
        }
        let outside = self.mailbox.outside_s.load(Ordering::Relaxed) > OUTSIDE_MAX_S;
        outside
            .then(|| Error::Unavailable("no assignment: the consumer group is rebalancing".into()))
    }

    fn last_bounds(&self, partition: i32) -> Option<Bounds> {
        self.mailbox.bounds().get(&partition).copied()
    }

    async fn start(&mut self, positions: &[(i32, i64)]) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let partitions: Vec<_> = positions.iter().map(|(partition, _)| *partition).collect();
        // Given back first rather than sought: what was fetched before is gone for certain, and it
        // works where the fetcher has given up too.
        self.hold(&partitions);
        let offsets = positions.iter().map(|(p, at)| (*p, Offset::Offset(*at)));
        self.consumer
            .incremental_assign(&self.list(offsets))
            .map_err(|error| unavailable(&error))?;
        self.running.extend(partitions);
        Ok(())
    }

    fn hold(&mut self, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        for partition in partitions {
            self.forget(*partition);
        }
        let list = self.list(partitions.iter().map(|p| (*p, Offset::Invalid)));
        if let Err(error) = give_back(&self.consumer, &list) {
            warn!(%error, "cannot give partitions back");
        }
    }

    fn hint(&mut self, hints: &[Hint]) {
        let waits = !self.mailbox.hinting().is_empty();
        // A rebalance may have overtaken it: librdkafka does not try again.
        let is_lost = waits && self.hinted_at.elapsed() >= HINT_ANSWER_MAX;
        if hints.is_empty() || (hints == self.hinted && !is_lost) {
            return;
        }
        // One at a time: partitions are not begun while commits are unanswered.
        if waits && !is_lost {
            self.put_off = hints.to_vec();
        } else {
            self.commit(hints);
        }
    }

    async fn hints(&mut self, partitions: &[i32]) -> Result<Vec<Hint>, Error> {
        let list = self.list(partitions.iter().map(|p| (*p, Offset::Invalid)));
        let committed = self
            .consumer
            .committed_offsets(list, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        Ok(committed
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => {
                    read_hint(element.partition(), offset, element.metadata())
                }
                _ => None,
            })
            .collect())
    }
}

/// How long after a batch of so many records, which took so long, the next one begins.
fn pace(took: Duration, records: u32) -> Duration {
    (took + took / REST_DIVISOR).min(PACE_MAX + records * PACE_MAX_PER_RECORD)
}

/// Copies a message in.
pub(super) fn push(intake: &mut Intake, message: &BorrowedMessage<'_>) {
    intake.push(Incoming {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        headers: message
            .headers()
            .into_iter()
            .flat_map(Headers::iter)
            .map(|header| (header.key, header.value)),
    });
}

/// What a hint says beside its offset: the database and the incarnation of its position.
fn metadata(hint: &Hint) -> String {
    format!("millrace {} {}", hint.database, hint.incarnation)
}

/// None for what another program has committed.
fn read_hint(partition: i32, offset: i64, metadata: &str) -> Option<Hint> {
    let (database, incarnation) = metadata.strip_prefix("millrace ")?.split_once(' ')?;
    Some(Hint {
        partition,
        offset,
        database: database.parse().ok()?,
        incarnation: incarnation.parse().ok()?,
    })
}

/// Everything that may pass.
pub(super) fn unavailable(error: &impl ToString) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_rests_half_as_long_as_it_worked_but_not_for_a_database_far_away() {
        for (took_ms, records, pace_ms) in [(2, 10, 3), (4, 40, 6), (100, 1, 8), (100, 200, 18)] {
            let most = pace(Duration::from_millis(took_ms), records);
            assert_eq!(most.as_millis(), pace_ms, "{took_ms} {records}");
        }
    }

    #[test]
    fn a_hint_comes_back_and_what_others_commit_is_none() {
        let hint = Hint {
            partition: 3,
            offset: 9,
            database: uuid::Uuid::from_u128(7),
            incarnation: 2,
        };
        assert_eq!(read_hint(3, 9, &metadata(&hint)), Some(hint));
        for other in ["", "millrace", "millrace x 1", "millrace 0 ", "x"] {
            assert_eq!(read_hint(3, 9, other), None, "{other:?}");
        }
    }
}
