//! The log as a bystander reads it: no member of a group, nothing committed, checksums checked. For proofs.
//!
//! librdkafka blocks its caller, so it is read on a thread of its own, a bounded number of records ahead
//! of whoever compares them.

use std::time::{Duration, Instant};

use millrace_schemas::{ContentType, Transaction};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use crate::kafka::consumer::{push, unavailable};
use crate::kafka::log::{Bounds, Error, Topic};
use crate::kafka::settings::{Settings, refused};
use crate::record::{Intake, LogRange};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a poll waits: how soon it is noticed that nobody wants more.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the log may give nothing before it counts as not readable.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// How many intakes are read ahead: at most 4 MiB and 5,000 records each.
const AHEAD_MAX: usize = 4;

/// What differs from the group's consumer.
const PROPERTIES: [(&str, &str); 5] = [
    ("client.id", "millrace-verify"),
    ("check.crcs", "true"),
    ("queued.min.messages", "50000"),
    ("queued.max.messages.kbytes", "32768"),
    ("statistics.interval.ms", "0"),
];

/// Offsets `[from, next)` of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub next: i64,
}

/// A record with what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970, as the broker has it.
    pub timestamp: Option<i64>,
    /// The raw key.
    pub key: Option<Vec<u8>>,
    /// The raw value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// In the form of [`crate::record::Batch::headers`].
    pub headers: Vec<u8>,
    /// Id and digest, if it is a valid transaction.
    pub content: Option<(Uuid, [u8; 32])>,
}

impl LogRecord {
    /// Decodes a value.
    pub fn content_of(value: Option<&[u8]>, content_type: ContentType) -> Option<(Uuid, [u8; 32])> {
        let wire = millrace_schemas::decode(value?, content_type).ok()?;
        let transaction = Transaction::try_from(wire).ok()?;
        Some((transaction.id, transaction.digest()))
    }
}

/// What comes of a span, in this order.
#[derive(Debug)]
pub enum Read {
    /// What the log holds of the partition.
    Bounds(Bounds),
    /// The next records.
    Records(Vec<LogRecord>),
    /// What was not read yet and lies before this offset is gone: retention was faster.
    GoneBefore(i64),
    /// The span is read.
    End,
}

/// What is an error to librdkafka is told by what it keeps from being read.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka");
    }

    fn log(&self, _: RDKafkaLogLevel, fac: &str, message: &str) {
        debug!(fac, "librdkafka: {message}");
    }
}

impl ConsumerContext for Quiet {}

/// A consumer that keeps quiet.
type Bystander = BaseConsumer<Quiet>;

/// Reads spans of a topic.
pub struct Reader {
    topic: Topic,
    consumer: Option<Bystander>,
    read: Option<mpsc::Receiver<Result<Read, Error>>>,
}

impl Reader {
    /// Connects. `settings.group` is not joined.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let mut config: ClientConfig = settings.config()?;
        for (name, value) in PROPERTIES {
            config.set(name, value);
        }
        let created = config.create_with_context(Quiet);
        let consumer: Bystander = created.map_err(|error| refused(&error))?;
        let name = settings.topic.clone();
        let connected = tokio::task::spawn_blocking(move || {
            let topic = topic(&consumer, name)?;
            Ok((consumer, topic))
        });
        let (consumer, topic) = connected.await.map_err(|e| unavailable(&e))??;
        Ok(Self {
            topic,
            consumer: Some(consumer),
            read: None,
        })
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Begins to read these spans, one after the other. Once.
    pub fn start(&mut self, spans: Vec<Span>) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let (sender, receiver) = mpsc::channel(AHEAD_MAX);
        let topic = self.topic.name.clone();
        self.read = Some(receiver);
        // Ends by itself once the receiver is gone.
        tokio::task::spawn_blocking(move || {
            let reading = Reading {
                consumer,
                topic,
                sender,
                intake: Intake::default(),
            };
            reading.run(&spans);
        });
    }

    /// What comes next.
    pub async fn next(&mut self) -> Result<Read, Error> {
        let read = match &mut self.read {
            Some(read) => read.recv().await,
            None => None,
        };
        read.unwrap_or_else(|| Err(Error::Unavailable("the reader has ended".into())))
    }
}

fn topic(consumer: &Bystander, name: String) -> Result<Topic, Error> {
    let metadata = consumer
        .fetch_metadata(Some(&name), REQUEST_TIMEOUT)
        .map_err(|error| unavailable(&error))?;
    let mut topics = metadata.topics().iter();
    let found = topics.find(|topic| topic.name() == name);
    let partitions = found.map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(Error::TopicMissing(name));
    }
    Ok(Topic {
        name,
        partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        cluster_id: consumer.client().fetch_cluster_id(REQUEST_TIMEOUT),
    })
}

/// Why reading ends early.
enum Stop {
    /// Nobody wants more.
    Unwanted,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Reading {
    consumer: Bystander,
    topic: String,
    sender: mpsc::Sender<Result<Read, Error>>,
    intake: Intake,
}

impl Reading {
    fn run(mut self, spans: &[Span]) {
        for span in spans {
            match self.read(*span) {
                Ok(()) => {}
                Err(Stop::Unwanted) => return,
                Err(Stop::Failed(error)) => {
                    // Whoever is gone needs no error.
                    let _ = self.sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    }

    fn read(&mut self, span: Span) -> Result<(), Stop> {
        let bounds = self.bounds(span.partition)?;
        self.send(Read::Bounds(bounds))?;
        let next = span.next.min(bounds.end);
        let mut from = span.from.max(bounds.start);
        while from < next {
            match self.poll_until(Span { from, next, ..span })? {
                None => break,
                Some(gone_before) => {
                    self.flush(span.partition)?;
                    self.send(Read::GoneBefore(gone_before))?;
                    from = gone_before;
                }
            }
        }
        self.flush(span.partition)?;
        self.send(Read::End)
    }

    /// Reads to the end of the span, or gives where the log begins that has lost what was to come.
    fn poll_until(&mut self, span: Span) -> Result<Option<i64>, Stop> {
        let mut list = TopicPartitionList::new();
        let added =
            list.add_partition_offset(&self.topic, span.partition, Offset::Offset(span.from));
        added
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| unavailable(&error))?;
        let (mut next, mut heard, mut trouble) = (span.from, Instant::now(), String::new());
        loop {
            if self.intake.is_full() {
                self.flush(span.partition)?;
                heard = Instant::now();
            }
            match self.consumer.poll(POLL_TIMEOUT) {
                Some(Ok(message)) if message.partition() != span.partition => {}
                Some(Ok(message)) if message.offset() >= span.next => return Ok(None),
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    heard = Instant::now();
                    push(&mut self.intake, &message);
                    if next == span.next {
                        return Ok(None);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == span.partition => {
                    return Ok(None);
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => {
                    let Bounds { start, .. } = self.bounds(span.partition)?;
                    if start > next {
                        return Ok(Some(start));
                    }
                    let what = format!(
                        "offset {next} of partition {} is out of range",
                        span.partition
                    );
                    return Err(Error::Unavailable(what).into());
                }
                Some(Err(KafkaError::MessageConsumption(
                    code @ (RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage),
                ))) => {
                    let what = format!(
                        "partition {} is damaged at or after offset {next}: {code}",
                        span.partition
                    );
                    return Err(Error::Unavailable(what).into());
                }
                Some(Err(error)) => trouble = format!(": {error}"),
                None if self.sender.is_closed() => return Err(Stop::Unwanted),
                None => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                let what = format!(
                    "no record of partition {} from offset {next} on came in {} s{trouble}",
                    span.partition,
                    SILENCE_MAX.as_secs()
                );
                return Err(Error::Unavailable(what).into());
            }
        }
    }

    fn bounds(&self, partition: i32) -> Result<Bounds, Error> {
        let watermarks = self
            .consumer
            .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
        let (start, end) = watermarks.map_err(|error| unavailable(&error))?;
        Ok(Bounds { start, end })
    }

    /// Hands on what was read.
    fn flush(&mut self, partition: i32) -> Result<(), Stop> {
        let range = LogRange {
            partition,
            incarnation: 0,
            from: 0,
            next: 0,
        };
        let batch = self.intake.batch(std::iter::once(range));
        let records: Vec<_> = batch
            .slices()
            .iter()
            .flat_map(|slice| batch.records(slice))
            .map(|record| LogRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: batch.key(record).map(<[u8]>::to_vec),
                value: batch.value(record).map(<[u8]>::to_vec),
                headers: batch.headers(record).to_vec(),
                content: LogRecord::content_of(batch.value(record), record.content_type),
            })
            .collect();
        self.intake.clear();
        if records.is_empty() {
            return Ok(());
        }
        self.send(Read::Records(records))
    }

    fn send(&self, read: Read) -> Result<(), Stop> {
        let sent = self.sender.blocking_send(Ok(read));
        sent.map_err(|_| Stop::Unwanted)
    }
}
