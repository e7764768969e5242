//! librdkafka's in-process broker: real enough for every client, and gone with the process.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_publisher::APPLIED_GROUP;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio_util::sync::CancellationToken;

/// How often the positions are told.
const TELL_INTERVAL: Duration = Duration::from_millis(20);

/// A running broker with one topic. It ends with the process and not before: librdkafka ends its clients in
/// the background, and one that outlives its broker by a moment says so.
pub struct Broker {
    /// Owns the cluster: librdkafka hangs it on a client.
    _owner: ManuallyDrop<BaseProducer<Quiet>>,
    addresses: String,
}

impl Broker {
    /// Starts it on a free port.
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let owner: BaseProducer<Quiet> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create_with_context(Quiet)
            .context("starting the in-memory broker")?;
        let cluster = owner
            .client()
            .mock_cluster()
            .context("this librdkafka has no in-memory broker")?;
        cluster
            .create_topic(topic, partitions, 1)
            .context("creating the topic")?;
        let addresses = cluster.bootstrap_servers();
        drop(cluster);
        join_at_once(&owner);
        Ok(Self {
            _owner: ManuallyDrop::new(owner),
            addresses,
        })
    }

    /// Tells publishers each moment how far the ledger is, so that they are held back before the broker
    /// would have to drop anything. While the database cannot be read nobody is let on.
    pub fn tell_positions(
        &self,
        topic: &'static str,
        database: PgConnectOptions,
        stop: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
        let committer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.addresses)
            .set("group.id", APPLIED_GROUP)
            .create()?;
        let committer = Arc::new(committer);
        Ok(async move {
            let mut told = Vec::new();
            let mut connection = None;
            let mut turn = tokio::time::interval(TELL_INTERVAL);
            while stop.run_until_cancelled(turn.tick()).await.is_some() {
                let positions = match read_positions(&database, &mut connection).await {
                    Ok(positions) => positions,
                    Err(error) => {
                        tracing::debug!(%error, "the positions cannot be read");
                        connection = None;
                        continue;
                    }
                };
                if positions == told {
                    continue;
                }
                let (committer, list) = (Arc::clone(&committer), positions.clone());
                let commit = move || commit(&committer, topic, &list);
                match tokio::task::spawn_blocking(commit).await {
                    Ok(Err(error)) => tracing::debug!(%error, "the positions are not told"),
                    _ => told = positions,
                }
            }
        })
    }

    /// `host:port`.
    pub fn addresses(&self) -> &str {
        &self.addresses
    }
}

/// Through the connection that is there, or else a new one.
async fn read_positions(
    database: &PgConnectOptions,
    connection: &mut Option<PgConnection>,
) -> sqlx::Result<Vec<(i32, i64)>> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(database.connect().await?),
    };
    let query = "select partition, position from reports.positions order by partition";
    sqlx::query_as(query).fetch_all(connection).await
}

fn commit(committer: &BaseConsumer, topic: &str, positions: &[(i32, i64)]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for &(partition, position) in positions {
        list.add_partition_offset(topic, partition, Offset::Offset(position))?;
    }
    committer.commit(&list, CommitMode::Sync)
}

/// Its groups wait 3 seconds for further members before the first rebalance: here all are known.
#[expect(
    unsafe_code,
    reason = "rdkafka has no safe function for this property of the in-memory broker"
)]
fn join_at_once(owner: &BaseProducer<Quiet>) {
    use rdkafka::bindings;
    // SAFETY: the client is alive, so its cluster, if there is one, is alive too.
    unsafe {
        let cluster = bindings::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        if !cluster.is_null() {
            bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
    }
}

/// The broker's own client publishes nothing, and what it says is about the broker being a mock.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(fac, "the in-memory broker: {message}");
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}
