//! Holding back for a broker that drops what it cannot keep.
//!
//! librdkafka's in-process broker, which `millrace dev` runs, keeps at most 5 MiB or 100,000 batches of
//! a partition and silently drops the oldest beyond that. So before a record is handed in to such a
//! cluster, the partition's backlog (what is in flight, and what the ledger has not applied yet) must be
//! far below it. Whoever runs such a broker says how far the ledger is by committing the positions for
//! [`APPLIED_GROUP`].

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_schemas::partition_of;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::delivery::OnDelivery;
use crate::settings::refused;
use crate::{Error, RawRecord, Settings};

/// How the cluster ids of librdkafka's in-process broker begin.
const CLUSTER_ID_PREFIX: &str = "mockCluster";

/// The group whose committed offsets are the ledger's positions.
pub const APPLIED_GROUP: &str = "millrace-applied";

/// A partition's backlog, in bytes as the broker keeps them: several publishers at once still fit.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;
/// The same in records: a batch has at least one.
const BACKLOG_RECORDS_MAX: i64 = 20_000;
/// What the broker keeps around a record that is alone in its batch.
const FRAME_BYTES: usize = 100;

/// How often the positions are asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the cluster with this id is librdkafka's in-process broker.
pub fn is_in_memory(cluster_id: &str) -> bool {
    cluster_id.starts_with(CLUSTER_ID_PREFIX)
}

/// The backlog of every partition.
pub(crate) struct Backlog {
    partitions: Vec<Partition>,
    /// The largest record so far, framed.
    record_bytes_max: AtomicUsize,
    changed: Notify,
}

#[derive(Default)]
struct Partition {
    /// After the last record that has a receipt.
    end: AtomicI64,
    /// The ledger's position, or less.
    applied: AtomicI64,
    in_flight: AtomicI64,
}

/// A record that was let in; when it goes, it is in flight no more.
struct Admitted {
    backlog: Arc<Backlog>,
    partition: usize,
}

impl Backlog {
    /// Follows the positions for as long as the task runs.
    pub(crate) fn follow(
        settings: &Settings,
        partitions: i32,
        tasks: &mut JoinSet<()>,
    ) -> Result<Arc<Self>, Error> {
        // An in-memory broker takes everybody: none of the producer's properties is needed.
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &settings.brokers)
            .set("group.id", APPLIED_GROUP)
            .create()
            .map_err(|error| refused(&error))?;
        let backlog = Arc::new(Self {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            record_bytes_max: AtomicUsize::new(1),
            changed: Notify::new(),
        });
        tasks.spawn(look(
            Arc::new(consumer),
            settings.topic.clone(),
            Arc::downgrade(&backlog),
        ));
        Ok(backlog)
    }

    /// Waits until the record's partition has room for it. Gives the callback to hand in with it.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        record: &RawRecord<'_>,
        on_delivery: OnDelivery,
    ) -> OnDelivery {
        let count = i32::try_from(self.partitions.len()).unwrap_or(i32::MAX);
        let partition = match (record.partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, count),
            // Anywhere: any partition tells how far behind the ledger is.
            (None, None) => 0,
        };
        let partition = usize::try_from(partition).unwrap_or(0);
        if partition >= self.partitions.len() {
            return on_delivery;
        }
        let bytes = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
        self.record_bytes_max
            .fetch_max(bytes + FRAME_BYTES, Ordering::Relaxed);
        let admitted = self.room(partition).await;
        Box::new(move |answer| {
            if let Ok(receipt) = &answer {
                let end = &admitted.backlog.partitions[admitted.partition].end;
                end.fetch_max(receipt.offset + 1, Ordering::Relaxed);
            }
            drop(admitted);
            on_delivery(answer);
        })
    }

    async fn room(self: &Arc<Self>, partition: usize) -> Admitted {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let found = &self.partitions[partition];
            let waiting = found.end.load(Ordering::Relaxed) - found.applied.load(Ordering::Relaxed);
            let in_flight = found.in_flight.fetch_add(1, Ordering::Relaxed);
            let admitted = Admitted {
                backlog: Arc::clone(self),
                partition,
            };
            if waiting + in_flight < self.records_max() {
                return admitted;
            }
            drop(admitted);
            changed.await;
        }
    }

    fn records_max(&self) -> i64 {
        let fit = BACKLOG_BYTES_MAX / self.record_bytes_max.load(Ordering::Relaxed);
        i64::try_from(fit).map_or(BACKLOG_RECORDS_MAX, |fit| fit.clamp(1, BACKLOG_RECORDS_MAX))
    }

    fn take_in(&self, offsets: &TopicPartitionList) {
        for element in offsets.elements() {
            let index = usize::try_from(element.partition()).unwrap_or(usize::MAX);
            if let (Some(partition), Offset::Offset(offset)) =
                (self.partitions.get(index), element.offset())
            {
                partition.applied.fetch_max(offset, Ordering::Relaxed);
            }
        }
        self.changed.notify_waiters();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let partition = &self.backlog.partitions[self.partition];
        partition.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks for the committed offsets until the publisher is gone.
async fn look(consumer: Arc<BaseConsumer>, topic: String, backlog: Weak<Backlog>) {
    while let Some(backlog) = backlog.upgrade() {
        let (consumer, topic) = (Arc::clone(&consumer), topic.clone());
        let partitions = backlog.partitions.len();
        let asked = tokio::task::spawn_blocking(move || committed(&consumer, &topic, partitions));
        match asked.await {
            Ok(Ok(offsets)) => backlog.take_in(&offsets),
            Ok(Err(error)) => tracing::debug!(%error, "asking for committed offsets"),
            Err(_) => return,
        }
        drop(backlog);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn committed(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: usize,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(0) {
        list.add_partition(topic, partition);
    }
    consumer.committed_offsets(list, LOOK_TIMEOUT)
}
