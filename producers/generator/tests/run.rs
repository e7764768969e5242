//! Against a real Kafka: `MILLRACE_BROKERS` says where (`infra/local/up.sh` starts one).
#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up fails the test"
)]

use std::collections::HashMap;
use std::future::pending;
use std::time::Duration;

use millrace_generator::{Error, IdVersion, Invalid, Skew, Summary, Workload, run};
use millrace_publisher::{Publisher, Settings};
use millrace_rules::Currency;
use millrace_schemas::{Key, partition_of};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use uuid::Uuid;

const PARTITIONS: i32 = 12;

/// A publisher to a new topic of its own.
async fn publisher() -> Publisher {
    let brokers = std::env::var("MILLRACE_BROKERS").expect(
        "MILLRACE_BROKERS is not set: start Kafka with infra/local/up.sh and load the env file it names",
    );
    let name = format!("generator-test-{}", Uuid::new_v4());
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create()
        .unwrap();
    let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
    let results = admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    results[0].as_ref().unwrap();
    Publisher::connect(&Settings::new(brokers, name))
        .await
        .unwrap()
}

fn workload(count: u64, rate: Option<f64>) -> Workload {
    Workload {
        count,
        rate,
        accounts: 1_000,
        skew: Skew::Zipf(1.0),
        seed: 3,
        id_version: IdVersion::V7,
        currency: Currency::parse("EUR").unwrap(),
        external_share: 0.1,
        start_micros: 1_700_000_000_000_000,
    }
}

fn check(summary: &Summary, handed_in: u64) {
    assert_eq!(summary.handed_in, handed_in);
    assert_eq!((summary.acknowledged, summary.failed), (handed_in, 0));
    assert_eq!(summary.partitions.iter().sum::<u64>(), handed_in);
    assert!(summary.first_error.is_none());
}

#[tokio::test]
async fn flat_out_every_transaction_lands_in_its_partition() {
    let workload = workload(20_000, None);
    let mut last = None;
    let summary = run(&publisher().await, &workload, |p| last = Some(p), pending())
        .await
        .unwrap();
    check(&summary, 20_000);
    assert_eq!(summary.lateness_max, Duration::ZERO);
    let last = last.unwrap();
    assert_eq!(
        (last.handed_in, last.acknowledged, last.failed, last.count),
        (20_000, 20_000, 0, 20_000)
    );

    let mut expected = HashMap::new();
    for transaction in workload.transactions().unwrap() {
        let partition = Key::of(&transaction).with_bytes(|key| partition_of(key, PARTITIONS));
        *expected.entry(partition).or_insert(0) += 1;
    }
    for (partition, count) in (0..).zip(&summary.partitions) {
        assert_eq!(
            expected.get(&partition),
            Some(count),
            "partition {partition}"
        );
    }
}

#[tokio::test]
async fn a_rate_is_never_exceeded() {
    let workload = workload(1_000, Some(1_000.0));
    let summary = run(&publisher().await, &workload, |_| {}, pending())
        .await
        .unwrap();
    check(&summary, 1_000);
    // The last one is due 999 ms after the start, and is handed in no earlier.
    assert!(summary.elapsed >= Duration::from_millis(999), "{summary:?}");
    assert!(summary.lateness_mean <= summary.lateness_max);
}

#[tokio::test]
async fn stopping_settles_what_was_handed_in() {
    // The next one would be due in an hour.
    let workload = workload(10, Some(1.0 / 3_600.0));
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut stop = Some(stop);
    let progress = |progress: millrace_generator::Progress| {
        if progress.acknowledged == 1
            && let Some(stop) = stop.take()
        {
            stop.send(()).unwrap();
        }
    };
    let summary = run(&publisher().await, &workload, progress, async {
        stopped.await.unwrap();
    })
    .await
    .unwrap();
    check(&summary, 1);
}

#[tokio::test]
async fn a_wrong_workload_publishes_nothing() {
    let publisher = publisher().await;
    let workload = Workload {
        accounts: 1,
        ..workload(10, None)
    };
    let error = run(&publisher, &workload, |_| {}, pending())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Invalid(Invalid::Accounts(1))),
        "{error:?}"
    );
    assert_eq!(publisher.drain().await.acknowledged, 0);
}
