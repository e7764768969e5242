//! `millrace topics`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use crate::cli::{Kafka, Usage, print};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// 30 days, in milliseconds.
const RETENTION_MS: &str = "2592000000";

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create the topic, or check that it is as it must be.
    Create(Flags),
}

/// Flags of `millrace topics create`.
#[derive(Debug, Args)]
#[command(
    after_help = "With three brokers or more: replication 3, min.insync.replicas 2. Retention is 30 days.
A topic that is there already is left as it is, if it fits.

Example:
  millrace topics create --partitions 12 --brokers kafka-1:9092,kafka-2:9092"
)]
pub struct Flags {
    #[command(flatten)]
    kafka: Kafka,
    /// How many partitions: the most replicas that can work at once. Choose well: keys change their
    /// partitions with the count.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
}

/// Creates or checks.
pub async fn run(topics: &Topics) -> anyhow::Result<ExitCode> {
    let Topics::Create(flags) = topics;
    let Flags { kafka, partitions } = flags;
    let admin = admin(kafka)?;
    let metadata = admin
        .inner()
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .with_context(|| format!("asking the brokers at {}", kafka.brokers))?;
    let brokers = metadata.brokers().len();
    let (replication, min_isr) = if brokers >= 3 { (3, "2") } else { (1, "1") };
    let topic = NewTopic::new(
        &kafka.topic,
        *partitions,
        TopicReplication::Fixed(replication),
    )
    .set("cleanup.policy", "delete")
    .set("retention.ms", RETENTION_MS)
    .set("min.insync.replicas", min_isr);
    let results = admin.create_topics([&topic], &AdminOptions::new()).await?;
    match results.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => check(&admin, flags).await?,
        Some(Err((name, code))) => bail!("creating topic {name:?}: {code}"),
        _ => print(&format!(
            "created topic {:?}: {partitions} partitions, replication {replication} on {brokers} brokers",
            kafka.topic
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a topic that drops records by key. `None` where the broker does not say.
pub async fn refuse_compacted(kafka: &Kafka) -> anyhow::Result<()> {
    let admin = admin(kafka)?;
    let resource = ResourceSpecifier::Topic(&kafka.topic);
    let configs = admin
        .describe_configs([&resource], &AdminOptions::new())
        .await?;
    for config in configs.into_iter().flatten() {
        let policy = config
            .get("cleanup.policy")
            .and_then(|entry| entry.value.as_deref());
        if let Some(policy) = policy.filter(|policy| policy.contains("compact")) {
            bail!(
                "topic {:?} has cleanup.policy={policy}: compaction would delete transactions; use a \
                 topic with cleanup.policy=delete",
                kafka.topic
            );
        }
    }
    Ok(())
}

async fn check(admin: &AdminClient<DefaultClientContext>, flags: &Flags) -> anyhow::Result<()> {
    let name = &flags.kafka.topic;
    let metadata = admin.inner().fetch_metadata(Some(name), REQUEST_TIMEOUT)?;
    let found = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    if usize::try_from(flags.partitions) != Ok(found) {
        bail!(
            "topic {name:?} exists with {found} partitions, not {}",
            flags.partitions
        );
    }
    refuse_compacted(&flags.kafka).await?;
    print(&format!("topic {name:?} exists with {found} partitions"));
    Ok(())
}

fn admin(kafka: &Kafka) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    kafka
        .client_config()
        .create()
        .map_err(|error| Usage(format!("Kafka settings: {error}")).into())
}
