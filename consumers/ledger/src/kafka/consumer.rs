//! Kafka behind the [`Log`] trait: a `BaseConsumer` on the lane's own thread.
//!
//! Rebalance callbacks run inside `poll`. They complete the rebalance at once, without a partition, and
//! queue an event: the group never waits for the database. librdkafka is given a partition by
//! [`Log::start`], always with the database's offset, and loses it by [`Log::hold`]. Nothing is ever
//! paused (the flag would outlive a revocation) and no logical offset is ever used (librdkafka would
//! look it up and jump there later). Calls here block their thread for a bounded time: a lane has
//! nothing else to do meanwhile, and the broker sees heartbeats from librdkafka's own thread.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tracing::{debug, error, warn};

use crate::kafka::log::{Bounds, Error, Event, Hint, Log, Topic};
use crate::record::{Incoming, Intake};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for a partition's bounds. Short: one without a leader answers nothing, and others wait.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(2);

/// A rebalance takes a few seconds; beyond, it is a problem that readiness tells.
const OUTSIDE_MAX_S: u32 = 8;

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
const DEFAULT_PROPERTIES: [(&str, &str); 9] = [
    ("client.id", "millrace-ledger"),
    // A replica that is gone is missed after this time: the least that a broker takes by default.
    ("session.timeout.ms", "6000"),
    // The others hear of a rebalance with their next heartbeat.
    ("heartbeat.interval.ms", "500"),
    ("fetch.wait.max.ms", "100"),
    // Prefetch enough for several batches, and little enough to stay small: per lane.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "8192"),
    // The default of one second lets a full queue run dry.
    ("fetch.queue.backoff.ms", "10"),
    ("socket.keepalive.enable", "true"),
    // A broker that is back is noticed within this time; the default is ten seconds.
    ("reconnect.backoff.max.ms", "1000"),
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
    pub(super) fn config(&self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULT_PROPERTIES {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            if let Some(why) = fixed(name) {
                return Err(Error::Settings(format!(
                    "property {name} cannot be set: {why}"
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

/// Why nobody may set this property.
fn fixed(name: &str) -> Option<&'static str> {
    match name {
        "bootstrap.servers" | "metadata.broker.list" => Some("--brokers says where Kafka is"),
        "group.id" => Some("--group names the consumer group"),
        _ => FIXED_PROPERTIES
            .iter()
            .any(|(fixed, _)| *fixed == name)
            .then_some("the protocol depends on it"),
    }
}

/// A partition of which librdkafka has said that its end is reached. At which offset that was it tells in
/// its statistics only, and those of that very moment may be of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// No statistics have come since.
    Now,
    /// Some have.
    Told,
    /// These are of after: the end was here. So many messages were in the queue then, and are handed out
    /// first: statistics overtake them.
    At { end: i64, queued: i64 },
}

impl Ended {
    fn next(self, eof_offset: i64, queued: i64) -> Self {
        match self {
            Self::Now => Self::Told,
            Self::Told if eof_offset >= 0 => Self::At {
                end: eof_offset,
                queued,
            },
            other => other,
        }
    }
}

/// What librdkafka's callbacks leave for the lane.
#[derive(Debug, Default)]
struct Mailbox {
    events: Mutex<VecDeque<Event>>,
    bounds: Mutex<HashMap<i32, Bounds>>,
    /// Partitions whose end was reached since they were begun, until it is known at which offset.
    ended: Mutex<HashMap<i32, Ended>>,
    /// Whether the offset of an end is known and not yet handed out: asked for each record.
    ending: AtomicBool,
    /// Whether the last statistics showed a broker that is connected.
    broker_up: AtomicBool,
    /// For how many seconds this member has been joining the group, or waiting for a rebalance.
    outside_s: AtomicU32,
    /// Whether the last thing said of the topic was that it is not there.
    topic_missing: AtomicBool,
    /// What Kafka does not permit, until it works again.
    refusal: Mutex<Option<String>>,
    /// Whether there is a refusal: asked for each record.
    troubled: AtomicBool,
    /// Whether a hint has no answer yet.
    hinting: AtomicBool,
    /// The last of the errors that pass by themselves: why no broker is there.
    last_error: Mutex<String>,
}

impl Mailbox {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bounds(&self) -> MutexGuard<'_, HashMap<i32, Bounds>> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<i32, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was handed out, or there is none any more.
    fn handed_out(&self, is_empty: bool) {
        for ended in self.ended().values_mut() {
            if let Ended::At { queued, .. } = ended {
                *queued = if is_empty { 0 } else { *queued - 1 };
            }
        }
    }

    /// Takes the ends before which everything is handed out.
    fn take_ends(&self, intake: &mut Intake) {
        let mut ended = self.ended();
        ended.retain(|partition, ended| match ended {
            Ended::At { end, queued: ..=0 } => {
                intake.push_end(*partition, *end);
                false
            }
            _ => true,
        });
        let is_ending = ended
            .values()
            .any(|ended| matches!(ended, Ended::At { .. }));
        self.ending.store(is_ending, Ordering::Relaxed);
    }

    fn last_error(&self) -> MutexGuard<'_, String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kafka answers as it should.
    fn works(&self) {
        self.topic_missing.store(false, Ordering::Relaxed);
        self.troubled.store(false, Ordering::Relaxed);
        *self.refusal() = None;
    }

    /// Most errors of the client pass and are told of by what they keep from happening. What somebody
    /// has to permit is not seen otherwise.
    fn note(&self, error: &KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka");
        let is_refusal = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::InconsistentGroupProtocol
            )
        );
        let text = format!("{error} {reason}").trim_end().to_owned();
        if is_refusal {
            *self.refusal() = Some(format!("Kafka refuses: {text}"));
            self.troubled.store(true, Ordering::Relaxed);
        } else {
            *self.last_error() = text;
        }
    }
}

struct Context {
    mailbox: Arc<Mailbox>,
    topic: String,
}

impl ClientContext for Context {
    /// What is an error to librdkafka is seldom one here: what keeps the lane from its work is told
    /// with its readiness, once.
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::PartitionEOF(_)) {
            self.mailbox.note(&error, reason);
        }
    }

    /// librdkafka's own lines repeat that, once per try and broker, and warn of hints that a rebalance
    /// has overtaken.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(fac, "librdkafka: {message}");
            }
            _ => debug!(fac, "librdkafka: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics
            .brokers
            .values()
            .any(|b| b.nodeid >= 0 && b.state == "UP");
        self.mailbox.broker_up.store(up, Ordering::Relaxed);
        // Statistics come each second.
        if statistics
            .cgrp
            .is_none_or(|group| group.join_state == "steady")
        {
            self.mailbox.outside_s.store(0, Ordering::Relaxed);
        } else {
            self.mailbox.outside_s.fetch_add(1, Ordering::Relaxed);
        }
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for (partition, ended) in &mut *self.mailbox.ended() {
            if let Some(seen) = topic.partitions.get(partition) {
                *ended = ended.next(seen.eof_offset, seen.fetchq_cnt);
                if matches!(ended, Ended::At { .. }) {
                    self.mailbox.ending.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut bounds = self.mailbox.bounds();
        for (partition, seen) in &topic.partitions {
            if *partition >= 0 && seen.ls_offset >= 0 && seen.lo_offset >= 0 {
                let start = seen.lo_offset;
                let end = seen.ls_offset;
                let known = bounds.entry(*partition).or_insert(Bounds { start, end });
                // Statistics may be older than an answer of the broker: only that goes back.
                known.start = known.start.max(start);
                known.end = known.end.max(end);
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
        let partitions: Vec<_> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        let event = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                warn!(%error, "cannot complete an assignment");
            }
            Event::Assigned(partitions)
        } else {
            if let Err(error) = give_back(consumer, list) {
                warn!(%error, "cannot give partitions back");
            }
            Event::Revoked(partitions)
        };
        self.mailbox.events().push_back(event);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.mailbox.hinting.store(false, Ordering::Relaxed);
        if let Err(error) = result {
            debug!(%error, "the offsets are not hinted");
        }
    }
}

/// Unassigns those of the partitions that librdkafka has: it takes nothing of a list with others.
fn give_back(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> KafkaResult<()> {
    let assigned = consumer.assignment()?;
    let mut held = TopicPartitionList::new();
    for element in list.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        if assigned.find_partition(topic, partition).is_some() {
            held.add_partition(topic, partition);
        }
    }
    consumer.incremental_unassign(&held)
}

/// One member of the consumer group.
pub struct KafkaLog {
    consumer: BaseConsumer<Context>,
    mailbox: Arc<Mailbox>,
    topic: String,
    /// The partitions that librdkafka has been given.
    running: BTreeSet<i32>,
    /// The last hint.
    hinted: Vec<Hint>,
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
}

impl Log for KafkaLog {
    async fn poll(&mut self, wait: Duration, intake: &mut Intake) -> Option<Event> {
        let mut wait = wait;
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
                Some(Err(error)) => self.on_error(&error),
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
        // One at a time: partitions are not begun while commits are unanswered.
        let is_news = !hints.is_empty() && hints != self.hinted;
        if !is_news || self.mailbox.hinting.swap(true, Ordering::Relaxed) {
            return;
        }
        let offsets = hints
            .iter()
            .map(|hint| (hint.partition, Offset::Offset(hint.offset)));
        let list = self.list(offsets);
        for (mut element, hint) in list.elements().into_iter().zip(hints) {
            element.set_metadata(metadata(hint));
        }
        match self.consumer.commit(&list, CommitMode::Async) {
            Ok(()) => self.hinted = hints.to_vec(),
            Err(error) => {
                self.mailbox.hinting.store(false, Ordering::Relaxed);
                debug!(%error, "cannot hint the offsets");
            }
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

/// The error of a client that could not be made; never with the value of a property.
pub fn refused(error: &KafkaError) -> Error {
    Error::Settings(match error {
        KafkaError::ClientConfig(_, why, name, _) => format!("property {name}: {why}"),
        other => other.to_string(),
    })
}

fn unavailable(error: &KafkaError) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_believed_from_statistics_of_after_it() {
        let now = Ended::Now.next(9, 0);
        assert_eq!(now, Ended::Told, "they may be of before");
        assert_eq!(now.next(-1001, 0), Ended::Told);
        let at = Ended::At { end: 9, queued: 1 };
        assert_eq!(now.next(9, 1), at);
        assert_eq!(at.next(12, 0), at);
        let mailbox = Mailbox::default();
        mailbox.ended().insert(3, at);
        let mut intake = Intake::default();
        mailbox.take_ends(&mut intake);
        assert_eq!(intake.take_ends(), [], "a message comes first");
        assert!(mailbox.ending.load(Ordering::Relaxed));
        mailbox.handed_out(false);
        mailbox.take_ends(&mut intake);
        assert_eq!(intake.take_ends(), [(3, 9)]);
        assert!(!mailbox.ending.load(Ordering::Relaxed));
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
