//! The topic, read without Millrace's consumer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::process::{PATIENCE, until};

/// How long one question to a broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A record as it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub is_json: bool,
}

/// The end of each partition: committed records only. A broker that was away leads its partitions a moment later.
pub async fn ends(brokers: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let consumer = consumer(brokers);
    let mut ends = Vec::new();
    for partition in 0..partitions {
        let look = async || match consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT) {
            Ok((_, end)) => Some(end),
            Err(error) if has_no_leader(&error) => None,
            Err(error) => panic!("the end of partition {partition}: {error}"),
        };
        ends.push(until("every partition has a leader", look).await);
    }
    ends
}

fn has_no_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Every committed record, by partition and offset.
pub fn read(brokers: &str, topic: &str, partitions: i32) -> Vec<Record> {
    let consumer = consumer(brokers);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let give_up = Instant::now() + PATIENCE;
    let (mut records, mut open) = (Vec::new(), (0..partitions).collect::<BTreeSet<_>>());
    while !open.is_empty() {
        assert!(Instant::now() < give_up, "partitions {open:?} do not end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(message) => {
                let message = message.unwrap();
                let is_json = message
                    .headers()
                    .into_iter()
                    .flat_map(|headers| headers.iter())
                    .any(|header| header.value == Some(b"application/json"));
                records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    is_json,
                });
            }
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

fn consumer(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "it-reads-without-a-group")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap()
}
