//! Kafka behind the [`Log`] trait: a `BaseConsumer` on the lane's own thread.
//!
//! Rebalance callbacks run inside `poll` and only queue an event; an assignment is completed by
//! [`Log::start`], which names the offsets of the database, or by [`Log::hold`]. Calls here block
//! their thread for a bounded time: a lane has nothing else to do meanwhile, and the broker sees
//! heartbeats from librdkafka's own thread.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tracing::{debug, warn};

use crate::kafka::log::{Bounds, Error, Event, Log, Topic};
use crate::record::{Incoming, Intake};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Properties that the protocol depends on: setting one of them is an error.
pub const FIXED_PROPERTIES: [(&str, &str); 7] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("statistics.interval.ms", "1000"),
];

/// Defaults that a property may override.
const DEFAULT_PROPERTIES: [(&str, &str); 6] = [
    ("client.id", "millrace-ledger"),
    ("fetch.wait.max.ms", "100"),
    // Prefetch enough for several batches, and little enough to stay small: per lane.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "8192"),
    // The default of one second lets a full queue run dry.
    ("fetch.queue.backoff.ms", "10"),
    ("socket.keepalive.enable", "true"),
];

/// What a consumer needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic to read.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Any other librdkafka property, except [`FIXED_PROPERTIES`].
    pub properties: Vec<(String, String)>,
}

impl Settings {
    fn config(&self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULT_PROPERTIES {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            if FIXED_PROPERTIES.iter().any(|(fixed, _)| fixed == name) {
                return Err(Error::Unavailable(format!(
                    "the property {name} cannot be set"
                )));
            }
            config.set(name, value);
        }
        for (name, value) in FIXED_PROPERTIES {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group);
        Ok(config)
    }
}

/// What librdkafka's callbacks leave for the lane.
#[derive(Debug, Default)]
struct Mailbox {
    events: Mutex<VecDeque<Event>>,
    bounds: Mutex<HashMap<i32, Bounds>>,
    /// Whether the last statistics showed a broker that is connected.
    broker_up: AtomicBool,
    /// Whether the last thing said of the topic was that it is not there.
    topic_missing: AtomicBool,
}

struct Context {
    mailbox: Arc<Mailbox>,
    topic: String,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let up = statistics
            .brokers
            .values()
            .any(|b| b.nodeid >= 0 && b.state == "UP");
        self.mailbox.broker_up.store(up, Ordering::Relaxed);
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let mut bounds = self
            .mailbox
            .bounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (partition, seen) in &topic.partitions {
            if *partition >= 0 && seen.ls_offset >= 0 && seen.lo_offset >= 0 {
                bounds.insert(
                    *partition,
                    Bounds {
                        start: seen.lo_offset,
                        end: seen.ls_offset,
                    },
                );
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let elements = list.elements();
        let partitions: Vec<_> = elements
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        let event = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // The loop completes an assignment that has partitions; one that has none must be
            // completed too, or this member stands still and the whole group with it.
            if partitions.is_empty()
                && let Err(error) = consumer.incremental_assign(list)
            {
                warn!(%error, "cannot complete an empty assignment");
            }
            Event::Assigned(partitions)
        } else {
            if let Err(error) = consumer.incremental_unassign(list) {
                warn!(%error, "cannot give partitions back");
            }
            Event::Revoked(partitions)
        };
        let mut events = self
            .mailbox
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        events.push_back(event);
    }
}

/// Whether the consumer reads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The assignment is not completed yet.
    Pending,
    /// Records come.
    Running,
    /// Assigned and paused.
    Paused,
}

/// One member of the consumer group.
pub struct KafkaLog {
    consumer: BaseConsumer<Context>,
    mailbox: Arc<Mailbox>,
    topic: String,
    reading: BTreeMap<i32, Reading>,
}

impl KafkaLog {
    /// Joins the group. The broker need not be there yet.
    pub fn join(settings: &Settings) -> Result<Self, Error> {
        let mailbox = Arc::new(Mailbox::default());
        let context = Context {
            mailbox: Arc::clone(&mailbox),
            topic: settings.topic.clone(),
        };
        let consumer: BaseConsumer<Context> = settings
            .config()?
            .create_with_context(context)
            .map_err(|error| unavailable(&error))?;
        consumer
            .subscribe(&[&settings.topic])
            .map_err(|error| unavailable(&error))?;
        Ok(Self {
            consumer,
            mailbox,
            topic: settings.topic.clone(),
            reading: BTreeMap::new(),
        })
    }

    fn take_event(&mut self) -> Option<Event> {
        let event = self
            .mailbox
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()?;
        match &event {
            Event::Assigned(partitions) => {
                self.mailbox.topic_missing.store(false, Ordering::Relaxed);
                self.reading
                    .extend(partitions.iter().map(|p| (*p, Reading::Pending)));
            }
            Event::Revoked(partitions) => {
                for partition in partitions {
                    self.reading.remove(partition);
                }
            }
            Event::OutOfRange(_) => {}
        }
        Some(event)
    }

    fn on_error(&self, error: &KafkaError, intake: &mut Intake) {
        match error {
            KafkaError::PartitionEOF(partition) => intake.push_end(*partition),
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                // The error names no partition: every running one is checked again.
                let mut events = self
                    .mailbox
                    .events
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let running = self.reading.iter().filter(|(_, r)| **r == Reading::Running);
                events.extend(running.map(|(partition, _)| Event::OutOfRange(*partition)));
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ) => self.mailbox.topic_missing.store(true, Ordering::Relaxed),
            error => debug!(%error, "the broker answers with an error"),
        }
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

    fn in_state(&self, partition: i32, state: Reading) -> bool {
        self.reading.get(&partition) == Some(&state)
    }
}

impl Log for KafkaLog {
    async fn poll(&mut self, wait: Duration, intake: &mut Intake) -> Option<Event> {
        let mut wait = wait;
        loop {
            if let Some(event) = self.take_event() {
                return Some(event);
            }
            if intake.is_full() {
                return None;
            }
            match self.consumer.poll(wait) {
                None if self
                    .mailbox
                    .events
                    .lock()
                    .is_ok_and(|events| events.is_empty()) =>
                {
                    return None;
                }
                None => {}
                Some(Ok(message)) => intake.push(Incoming {
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
                }),
                Some(Err(error)) => self.on_error(&error, intake),
            }
            wait = Duration::ZERO;
        }
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
        Ok(Topic {
            name: self.topic.clone(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            cluster_id: self.consumer.client().fetch_cluster_id(REQUEST_TIMEOUT),
        })
    }

    async fn bounds(&mut self, partition: i32) -> Result<Bounds, Error> {
        let (start, end) = self
            .consumer
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)
            .map_err(|error| unavailable(&error))?;
        let bounds = Bounds { start, end };
        let mut seen = self
            .mailbox
            .bounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.insert(partition, bounds);
        Ok(bounds)
    }

    fn problem(&self) -> Option<Error> {
        if !self.mailbox.broker_up.load(Ordering::Relaxed) {
            return Some(Error::Unavailable("no Kafka broker is connected".into()));
        }
        let missing = self.mailbox.topic_missing.load(Ordering::Relaxed);
        missing.then(|| Error::TopicMissing(self.topic.clone()))
    }

    fn last_bounds(&self, partition: i32) -> Option<Bounds> {
        let seen = self
            .mailbox
            .bounds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.get(&partition).copied()
    }

    async fn start(&mut self, positions: &[(i32, i64)]) -> Result<(), Error> {
        let at = |state: Reading| {
            let chosen = positions.iter().filter(|(partition, _)| match state {
                Reading::Pending => self.in_state(*partition, Reading::Pending),
                _ => {
                    !self.in_state(*partition, Reading::Pending)
                        && self.reading.contains_key(partition)
                }
            });
            self.list(chosen.map(|(partition, offset)| (*partition, Offset::Offset(*offset))))
        };
        let (fresh, assigned) = (at(Reading::Pending), at(Reading::Running));
        if fresh.count() > 0 {
            self.consumer
                .incremental_assign(&fresh)
                .map_err(|error| unavailable(&error))?;
        }
        if assigned.count() > 0 {
            let sought = self
                .consumer
                .seek_partitions(assigned, REQUEST_TIMEOUT)
                .map_err(|error| unavailable(&error))?;
            for element in sought.elements() {
                element.error().map_err(|error| unavailable(&error))?;
            }
            let paused = positions
                .iter()
                .filter(|(p, _)| self.in_state(*p, Reading::Paused));
            let paused = self.list(paused.map(|(partition, _)| (*partition, Offset::Invalid)));
            self.consumer
                .resume(&paused)
                .map_err(|error| unavailable(&error))?;
        }
        for (partition, _) in positions {
            if let Some(reading) = self.reading.get_mut(partition) {
                *reading = Reading::Running;
            }
        }
        Ok(())
    }

    fn hold(&mut self, partitions: &[i32]) {
        let pending = partitions
            .iter()
            .filter(|partition| self.in_state(**partition, Reading::Pending));
        // The rebalance must be completed, or the whole group waits; the end is a place where nothing
        // is read by mistake.
        let pending = self.list(pending.map(|partition| (*partition, Offset::End)));
        if pending.count() > 0
            && let Err(error) = self.consumer.incremental_assign(&pending)
        {
            warn!(%error, "cannot complete the assignment");
        }
        let running = partitions
            .iter()
            .filter(|partition| self.reading.contains_key(partition))
            .copied();
        let running = self.list(running.map(|partition| (partition, Offset::Invalid)));
        if let Err(error) = self.consumer.pause(&running) {
            warn!(%error, "cannot pause");
        }
        for partition in partitions {
            if let Some(reading) = self.reading.get_mut(partition) {
                *reading = Reading::Paused;
            }
        }
    }

    fn hint(&mut self, positions: &[(i32, i64)]) {
        if positions.is_empty() {
            return;
        }
        let list = self.list(
            positions
                .iter()
                .map(|(p, offset)| (*p, Offset::Offset(*offset))),
        );
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            debug!(%error, "cannot hint the offsets");
        }
    }
}

fn unavailable(error: &KafkaError) -> Error {
    Error::Unavailable(error.to_string())
}
