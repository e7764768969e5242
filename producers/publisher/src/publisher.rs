//! Connecting, handing in records, waiting for what is in flight.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_schemas::{Key, Transaction, encode};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::backlog::Backlog;
use crate::delivery::{Deliveries, InFlight, OnDelivery};
use crate::settings::refused;
use crate::{Delivery, Error, Receipt, Settings, Totals};

/// How long [`Publisher::connect`] waits for a broker.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The metadata that was asked for before has it already.
const CLUSTER_ID_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a topic may be unknown: a broker learns of a new one a moment after its creation.
const TOPIC_UNKNOWN_MAX: Duration = Duration::from_secs(2);
const TOPIC_UNKNOWN_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at a full queue: far shorter than the time in which the queue runs dry.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// How long the polling thread outlives the last publisher, at most.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Most transactions are smaller, so encoding allocates once.
const RECORD_BYTES_TYPICAL: usize = 256;

type Producer = BaseProducer<Deliveries>;

/// Publishes records. Clones share one producer.
///
/// Records handed in one after the other keep their order in their partition. A record that fails does
/// not hold back those behind it. Dropping the last clone gives up what is in flight (its answer is
/// [`Error::Retry`]): [`Publisher::drain`] first.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    producer: Arc<Producer>,
    topic: String,
    partitions: i32,
    /// One permit for each record that may be in flight.
    slots: Arc<Semaphore>,
    slots_max: u32,
    /// Only where the broker keeps everything in memory.
    backlog: Option<Arc<Backlog>>,
    _tasks: JoinSet<()>,
}

/// A record as Kafka sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawRecord<'a> {
    /// Decides the partition, unless that is given.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is Kafka's null.
    pub payload: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Where to put it, whatever the key says.
    pub partition: Option<i32>,
}

impl Publisher {
    /// Connects, checks that the topic exists and reads its partition count. Waits at most
    /// [`CONNECT_TIMEOUT`] for a broker.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::Unreachable`], [`Error::TopicMissing`]; [`Error::Stop`] when the
    /// topic may not be read.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let producer: Producer = settings
            .client_config()?
            .create_with_context(Deliveries::new())
            .map_err(|error| refused(&error))?;
        let producer = Arc::new(producer);
        start_polling(Arc::downgrade(&producer))?;
        let partitions = partition_count(&producer, settings).await?;
        let mut tasks = JoinSet::new();
        let backlog = if is_in_memory(&producer).await {
            Some(Backlog::follow(settings, partitions, &mut tasks)?)
        } else {
            None
        };
        Ok(Self(Arc::new(Shared {
            producer,
            topic: settings.topic.clone(),
            partitions,
            slots: Arc::new(Semaphore::new(settings.in_flight_max)),
            slots_max: u32::try_from(settings.in_flight_max).expect("the limit was checked"),
            backlog,
            _tasks: tasks,
        })))
    }

    /// The topic's partition count when the publisher connected.
    pub fn partitions(&self) -> i32 {
        self.0.partitions
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Hands the transaction in; waits while too much is unacknowledged. Cancelled while it waits, it
    /// has handed in nothing.
    ///
    /// # Errors
    /// [`Error::FixRecord`] and [`Error::Stop`] when the record could not be handed in. What happens to
    /// it later is told by the [`Delivery`].
    pub async fn publish(&self, transaction: &Transaction<'_>) -> Result<Delivery, Error> {
        let (delivery, complete) = Delivery::new();
        self.publish_with(transaction, complete).await?;
        Ok(delivery)
    }

    /// Like [`Publisher::publish`], for callers that do not wait for each record: `on_delivery` is
    /// called once with the answer, unless this returns an error. It runs on the thread that serves all
    /// answers, so it must be quick and must not block.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_with(
        &self,
        transaction: &Transaction<'_>,
        on_delivery: impl FnOnce(Result<Receipt, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        // The value and the key behind it, in one allocation.
        let mut bytes = Vec::with_capacity(RECORD_BYTES_TYPICAL);
        encode(transaction, &mut bytes);
        let payload_bytes = bytes.len();
        Key::of(transaction).with_bytes(|key| bytes.extend_from_slice(key));
        let (payload, key) = bytes.split_at(payload_bytes);
        let record = RawRecord {
            key: Some(key),
            payload: Some(payload),
            ..RawRecord::default()
        };
        self.hand_in(record, Box::new(on_delivery)).await
    }

    /// Hands in any bytes, for tests and for tools that replay.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_raw(&self, record: RawRecord<'_>) -> Result<Delivery, Error> {
        let (delivery, complete) = Delivery::new();
        self.hand_in(record, Box::new(complete)).await?;
        Ok(delivery)
    }

    /// How many records are in flight now.
    pub fn in_flight(&self) -> usize {
        self.0.slots_max as usize - self.0.slots.available_permits()
    }

    /// What became of the records so far.
    pub fn totals(&self) -> Totals {
        self.0.producer.context().totals()
    }

    /// Waits until every record handed in before is acknowledged or has failed, and every callback has
    /// returned. Bounded by the delivery timeout (120 s unless a property says otherwise). Records that
    /// others hand in meanwhile wait behind it.
    pub async fn drain(&self) -> Totals {
        let all = self.0.slots.acquire_many(self.0.slots_max).await;
        drop(all.expect("the slots are never closed"));
        self.totals()
    }

    async fn hand_in(&self, raw: RawRecord<'_>, mut on_delivery: OnDelivery) -> Result<(), Error> {
        if let Some(backlog) = &self.0.backlog {
            on_delivery = backlog.admit(&raw, on_delivery).await;
        }
        let slot = Arc::clone(&self.0.slots).acquire_owned().await;
        let slot = slot.expect("the slots are never closed");
        let deliveries = self.0.producer.context();
        let mut record =
            raw.addressed_to(&self.0.topic, Box::new(InFlight::new(slot, on_delivery)));
        loop {
            match self.0.producer.send(record) {
                Ok(()) => {
                    deliveries.meters.in_flight.increment(1.0);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => {
                    let error = Error::at_hand_in(error);
                    deliveries.count_failure(&error);
                    return Err(error);
                }
            }
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.0.topic)
            .field("partitions", &self.0.partitions)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

impl<'a> RawRecord<'a> {
    fn addressed_to(
        self,
        topic: &'a str,
        opaque: Box<InFlight>,
    ) -> BaseRecord<'a, [u8], [u8], Box<InFlight>> {
        let mut record = BaseRecord::with_opaque_to(topic, opaque);
        record.key = self.key;
        record.payload = self.payload;
        record.partition = self.partition;
        if !self.headers.is_empty() {
            let empty = OwnedHeaders::new_with_capacity(self.headers.len());
            record.headers = Some(self.headers.iter().fold(empty, |all, &(key, value)| {
                all.insert(Header {
                    key,
                    value: Some(value),
                })
            }));
        }
        record
    }
}

/// Serves delivery reports until the last publisher is gone.
///
/// Not rdkafka's `ThreadedProducer`: that joins its thread when the last clone is dropped, which blocks
/// an async caller and panics when a callback on that very thread held the clone.
fn start_polling(producer: Weak<Producer>) -> Result<(), Error> {
    let poll = move || {
        while let Some(producer) = producer.upgrade() {
            producer.poll(POLL_TIMEOUT);
        }
    };
    std::thread::Builder::new()
        .name("publisher-poll".into())
        .spawn(poll)
        .map(drop)
        .map_err(|error| Error::Settings(format!("no thread could be started: {error}")))
}

async fn partition_count(producer: &Arc<Producer>, settings: &Settings) -> Result<i32, Error> {
    let give_up = Instant::now() + TOPIC_UNKNOWN_MAX;
    loop {
        let (producer, settings) = (Arc::clone(producer), settings.clone());
        let asked = tokio::task::spawn_blocking(move || ask_partition_count(&producer, &settings));
        match asked.await.expect("asking does not panic") {
            Err(Error::TopicMissing { .. }) if Instant::now() < give_up => {
                sleep(TOPIC_UNKNOWN_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether the cluster is librdkafka's in-process broker. One that does not tell is a real one.
async fn is_in_memory(producer: &Arc<Producer>) -> bool {
    let producer = Arc::clone(producer);
    let asked =
        tokio::task::spawn_blocking(move || producer.client().fetch_cluster_id(CLUSTER_ID_TIMEOUT));
    let cluster_id = asked.await.expect("asking does not panic");
    cluster_id.is_some_and(|id| crate::is_in_memory(&id))
}

fn ask_partition_count(producer: &Producer, settings: &Settings) -> Result<i32, Error> {
    let unreachable = |source| Error::Unreachable {
        brokers: settings.brokers.clone(),
        source,
    };
    let metadata = producer
        .client()
        .fetch_metadata(Some(&settings.topic), CONNECT_TIMEOUT)
        .map_err(unreachable)?;
    let topic = metadata.topics().first();
    match topic.and_then(rdkafka::metadata::MetadataTopic::error) {
        None => {}
        Some(error) => {
            let error = KafkaError::MetadataFetch(RDKafkaErrorCode::from(error));
            return Err(match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                ) => missing(settings),
                Some(RDKafkaErrorCode::LeaderNotAvailable) => unreachable(error),
                _ => Error::Stop(error),
            });
        }
    }
    let partitions = topic.map_or(0, |topic| topic.partitions().len());
    match i32::try_from(partitions) {
        Ok(0) | Err(_) => Err(missing(settings)),
        Ok(partitions) => Ok(partitions),
    }
}

fn missing(settings: &Settings) -> Error {
    Error::TopicMissing {
        topic: settings.topic.clone(),
        brokers: settings.brokers.clone(),
    }
}

#[cfg(test)]
mod tests {
    //! Faults that a real broker does not show on demand, from librdkafka's mock cluster.

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    async fn cluster(properties: &[(&str, &str)]) -> (Cluster, Publisher) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 3, 1).unwrap();
        let mut settings = Settings::new(cluster.bootstrap_servers(), "t");
        for (name, value) in properties {
            settings.properties.push(((*name).into(), (*value).into()));
        }
        let publisher = Publisher::connect(&settings).await.unwrap();
        assert_eq!(publisher.partitions(), 3);
        (cluster, publisher)
    }

    fn record(key: &[u8]) -> RawRecord<'_> {
        RawRecord {
            key: Some(key),
            payload: Some(b"value"),
            ..RawRecord::default()
        }
    }

    async fn outcome(publisher: &Publisher) -> Result<Receipt, Error> {
        publisher.publish_raw(record(b"k")).await?.await
    }

    #[tokio::test]
    async fn passing_faults_are_retried_within() {
        let (cluster, publisher) = cluster(&[]).await;
        let fault = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fault, fault]);
        outcome(&publisher).await.unwrap();
        assert_eq!(publisher.totals().acknowledged, 1);
    }

    #[tokio::test]
    async fn a_broken_producer_says_stop() {
        let (cluster, publisher) = cluster(&[]).await;
        let fault = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fault]);
        for _ in 0..2 {
            let error = outcome(&publisher).await.unwrap_err();
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
        }
        let totals = publisher.drain().await;
        assert_eq!((totals.acknowledged, totals.failed), (0, 2));
        assert!(matches!(totals.first_error, Some(Error::Stop(_))));
        assert_eq!(publisher.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_missing_permission_says_stop() {
        let (cluster, publisher) = cluster(&[]).await;
        let fault = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::Produce, &[fault]);
        let error = outcome(&publisher).await.unwrap_err();
        assert!(matches!(error, Error::Stop(_)), "{error:?}");
        let error = publisher.publish_raw(record(b"k")).await.unwrap_err();
        assert!(matches!(error, Error::Stop(_)), "{error:?}");
    }

    #[tokio::test]
    async fn an_absent_broker_says_retry_in_bounded_time() {
        let (cluster, publisher) = cluster(&[
            ("delivery.timeout.ms", "500"),
            ("reconnect.backoff.max.ms", "200"),
        ])
        .await;
        cluster.broker_down(-1).unwrap();
        let error = outcome(&publisher).await.unwrap_err();
        assert!(matches!(error, Error::Retry(_)), "{error:?}");
        cluster.broker_up(-1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while outcome(&publisher).await.is_err() {
            assert!(Instant::now() < deadline, "the broker is back");
        }
    }

    #[tokio::test]
    async fn a_partition_that_does_not_exist_is_refused() {
        let (_cluster, publisher) = cluster(&[]).await;
        let record = RawRecord {
            partition: Some(3),
            ..record(b"k")
        };
        let error = publisher.publish_raw(record).await.unwrap_err();
        assert!(matches!(error, Error::FixRecord(_)), "{error:?}");
        assert_eq!(publisher.totals().failed, 1);
    }

    #[tokio::test]
    async fn a_callback_that_panics_harms_nobody_else() {
        let (_cluster, publisher) = cluster(&[]).await;
        let panics: OnDelivery = Box::new(|_| panic!("a panic on purpose"));
        publisher.hand_in(record(b"k"), panics).await.unwrap();
        outcome(&publisher).await.unwrap();
        assert_eq!(publisher.drain().await.acknowledged, 2);
    }

    #[tokio::test]
    async fn the_last_publisher_may_go_in_a_callback() {
        let (_cluster, publisher) = cluster(&[]).await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let last = publisher.clone();
        let holds_it: OnDelivery = Box::new(move |answer| {
            drop(last);
            sender.send(answer).unwrap();
        });
        publisher.hand_in(record(b"k"), holds_it).await.unwrap();
        drop(publisher);
        receiver.await.unwrap().unwrap();
    }
}
