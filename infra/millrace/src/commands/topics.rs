//! `millrace topics`.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode;

use crate::cli::{Kafka, eprint, print};

/// How long a question to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// 30 days, in milliseconds.
const RETENTION_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// What to do with topics.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:
  millrace topics create --partitions 12")]
pub enum Topics {
    /// Create the topic, or check that it is as it must be.
    Create(Flags),
}

/// Flags of `millrace topics create`.
#[derive(Debug, Args)]
#[command(
    after_help = "With three brokers or more: replication 3, min.insync.replicas 2. Retention is 30 days. \
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
    let admin = kafka.admin()?;
    let metadata = admin
        .inner()
        .fetch_metadata(None, REQUEST_TIMEOUT)
        .with_context(|| format!("asking the brokers at {}", kafka.brokers))?;
    let cluster = admin.inner().fetch_cluster_id(REQUEST_TIMEOUT);
    if cluster.is_some_and(|id| millrace_publisher::is_in_memory(&id)) {
        bail!(
            "{} is the broker of millrace dev, which has its topic already and makes no others",
            kafka.brokers
        );
    }
    let brokers = metadata.brokers().len();
    let (replication, min_isr) = if brokers >= 3 { (3, "2") } else { (1, "1") };
    let retention_ms = RETENTION_MS.to_string();
    let topic = NewTopic::new(
        &kafka.topic,
        *partitions,
        TopicReplication::Fixed(replication),
    )
    .set("cleanup.policy", "delete")
    .set("retention.ms", &retention_ms)
    .set("min.insync.replicas", min_isr);
    let results = admin.create_topics([&topic], &AdminOptions::new()).await?;
    match results.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
            check(&admin, flags, brokers).await?;
        }
        Some(Err((name, code))) => bail!("creating topic {name:?}: {code}"),
        _ => print(&format!(
            "created topic {:?}: {partitions} partitions, replication {replication} on {brokers} brokers",
            kafka.topic
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// A topic's `cleanup.policy` and what else is set for it.
pub struct CleanupPolicy {
    topic: String,
    settings: HashMap<String, String>,
}

impl CleanupPolicy {
    /// Asks the broker; none when it does not say: the topic is missing, or asking is not allowed.
    pub async fn of(
        admin: &AdminClient<DefaultClientContext>,
        topic: &str,
    ) -> Result<Option<Self>, KafkaError> {
        let resource = ResourceSpecifier::Topic(topic);
        let answers = admin
            .describe_configs([&resource], &AdminOptions::new())
            .await?;
        let settings: HashMap<_, _> = answers
            .into_iter()
            .flatten()
            .flat_map(|config| config.entries)
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect();
        let topic = topic.to_owned();
        let known = settings.contains_key("cleanup.policy");
        Ok(known.then_some(Self { topic, settings }))
    }

    /// An error when the topic drops records by key.
    pub fn refuse_compaction(&self) -> anyhow::Result<()> {
        let policy = self.setting("cleanup.policy");
        if policy.contains("compact") {
            bail!(
                "topic {:?} has cleanup.policy={policy}: compaction would delete transactions; use a \
                 topic with cleanup.policy=delete",
                self.topic
            );
        }
        Ok(())
    }

    /// Where it promises less than a topic that this command creates.
    fn shortcomings(&self, replication: usize, brokers: usize) -> Vec<String> {
        let number = |name: &str| self.setting(name).parse::<i64>().unwrap_or(-1);
        let mut all = Vec::new();
        let retention = number("retention.ms");
        if (0..RETENTION_MS).contains(&retention) {
            all.push(format!("retention.ms is {retention}, below {RETENTION_MS}"));
        }
        if brokers >= 3 && replication < 3 {
            all.push(format!("replication is {replication}, below 3"));
        }
        let min_isr = number("min.insync.replicas");
        if brokers >= 3 && min_isr < 2 {
            all.push(format!("min.insync.replicas is {min_isr}, below 2"));
        }
        all
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }
}

async fn check(
    admin: &AdminClient<DefaultClientContext>,
    flags: &Flags,
    brokers: usize,
) -> anyhow::Result<()> {
    let name = &flags.kafka.topic;
    let metadata = admin.inner().fetch_metadata(Some(name), REQUEST_TIMEOUT)?;
    let topic = metadata.topics().first();
    let partitions = topic.map_or(&[][..], MetadataTopic::partitions);
    let found = partitions.len();
    if usize::try_from(flags.partitions) != Ok(found) {
        bail!(
            "topic {name:?} exists with {found} partitions, not {}",
            flags.partitions
        );
    }
    let policy = CleanupPolicy::of(admin, name).await?;
    let policy = policy
        .with_context(|| format!("the broker does not show the settings of topic {name:?}"))?;
    policy.refuse_compaction()?;
    let replication = partitions.iter().map(|p| p.replicas().len()).min();
    for shortcoming in policy.shortcomings(replication.unwrap_or(0), brokers) {
        eprint(&format!("warning: topic {name:?}: {shortcoming}"));
    }
    print(&format!("topic {name:?} exists with {found} partitions"));
    Ok(())
}
