//! Where the log and the database contradict each other a partition stops, and says why.

use millrace_schemas::{Transaction, partition_of};
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminOptions, NewPartitions};
use sqlx::Connection as _;

use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{account_in, publish, transfer};

/// Ten for each of two partitions.
fn round(from: u128) -> Vec<Transaction<'static>> {
    let accounts = [account_in(0, 2, "a"), account_in(1, 2, "a")];
    (from..from + 20)
        .map(|n| transfer(n, &accounts[usize::from(n % 2 == 1)], "external:out", 1))
        .collect()
}

/// Two partitions, ten records applied in each, and nobody at work.
async fn applied_and_left(name: &str) -> Place {
    let place = Place::new(name, 2).await;
    publish(&place.publisher().await, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    ledger.stop().await.expect(0);
    place
}

/// Waits until exactly these partitions are stopped; readiness and log must say why.
async fn stopped(ledger: &Replica, partitions: &[i64], why: &str) {
    until(
        &format!("partitions {partitions:?} are stopped"),
        async || (ledger.partitions("stopped") == partitions).then_some(()),
    )
    .await;
    let (ready, detail) = ledger.readiness().unwrap();
    assert!(!ready, "{detail}");
    for partition in detail["partitions"].as_array().unwrap() {
        if partition["state"] == "stopped" {
            let told = partition["detail"].as_str().unwrap();
            assert!(told.contains(why), "no {why:?} in {told:?}");
        }
    }
    let log = ledger.log();
    for partition in partitions {
        let said = log.lines().any(|line| {
            line.contains("ERROR")
                && line.contains("the partition is stopped until an operator acts")
                && line.contains(&format!("partition={partition}"))
                && line.contains(why)
        });
        assert!(said, "no error about partition {partition} in {log}");
    }
}

async fn outcomes(place: &Place) -> i64 {
    place
        .number("select sum(next_seq)::bigint from millrace.positions")
        .await
}

#[tokio::test]
async fn a_log_that_starts_beyond_the_position_stops_its_partition_only() {
    let place = applied_and_left("retention").await;
    publish(&place.publisher().await, &round(100)).await;
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(place.topic(), 0, Offset::Offset(15))
        .unwrap();
    place
        .kafka_admin()
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0], "starts at 15, beyond the position 10").await;
    // The other one goes on.
    place.applied(30).await;
    assert_eq!(outcomes(&place).await, 30);
    place.verify_without_log().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_recreated_topic_stops_its_partitions() {
    let place = applied_and_left("recreated").await;
    recreate(&place).await;
    publish(&place.publisher().await, &round(100)[..6]).await;
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0, 1], "beyond the end of its log").await;
    assert_eq!(outcomes(&place).await, 20);
    place.verify_without_log().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_topic_that_is_recreated_while_it_is_read_stops_its_partitions() {
    let place = Place::new("recreated-running", 2).await;
    publish(&place.publisher().await, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    recreate(&place).await;
    publish(&place.publisher().await, &round(100)[..6]).await;
    stopped(&ledger, &[0, 1], "beyond the end of its log").await;
    assert_eq!(outcomes(&place).await, 20);
    place.verify_without_log().await;
    ledger.stop().await.expect(0);
}

pub async fn recreate(place: &Place) {
    let admin = place.kafka_admin();
    let deleted = admin
        .delete_topics(&[place.topic()], &AdminOptions::new())
        .await;
    deleted.unwrap()[0].as_ref().unwrap();
    // The broker answers before it has forgotten the old one.
    until("the topic is created again", async || {
        let ended = place.run(&["topics", "create", "--partitions", "2"]).await;
        (ended.code == Some(0) && ended.out.contains("created")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_topic_with_another_partition_count_is_not_applied() {
    let place = applied_and_left("grown").await;
    grow(&place).await;
    publish(&place.publisher().await, &round(100)).await;
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0, 1, 2], "3 partitions, the database knows 2").await;
    assert_eq!(outcomes(&place).await, 20);
    place.verify_without_log().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_topic_that_grows_while_it_is_read_stops_before_a_record_is_misjudged() {
    let place = Place::new("growing", 2).await;
    let publisher = place.publisher().await;
    publish(&publisher, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    grow(&place).await;
    // Keys whose partition was the other one before: for a topic of two they are misrouted.
    let moved: Vec<_> = (0..1_000)
        .map(|n| format!("moved-{n}"))
        .filter(|account| {
            let home = |partitions| partition_of(account.as_bytes(), partitions);
            home(3) < 2 && home(3) != home(2)
        })
        .take(10)
        .collect();
    let publisher = place.publisher().await;
    assert_eq!(publisher.partitions(), 3);
    let all: Vec<_> = (200..)
        .zip(&moved)
        .map(|(n, a)| transfer(n, a, "external:out", 1))
        .collect();
    publish(&publisher, &all).await;
    until("the partitions are stopped", async || {
        let stopped = ledger.partitions("stopped");
        (stopped.contains(&0) && stopped.contains(&1)).then_some(())
    })
    .await;
    let owned = ledger.partitions("stopped");
    stopped(&ledger, &owned, "3 partitions, the database knows 2").await;
    assert_eq!(outcomes(&place).await, 20);
    place.verify_without_log().await;
    ledger.stop().await.expect(0);
}

async fn grow(place: &Place) {
    let grown = NewPartitions::new(place.topic(), 3);
    let results = place
        .kafka_admin()
        .create_partitions([&grown], &AdminOptions::new())
        .await;
    results.unwrap()[0].as_ref().unwrap();
}

#[tokio::test]
async fn a_database_applies_one_topic_for_ever() {
    let place = applied_and_left("one").await;
    let other = Place::new("other", 2).await;
    publish(&other.publisher().await, &round(100)).await;
    let mut command = place.ledger_command(&["--lanes", "1"]);
    command.env("MILLRACE_TOPIC", other.topic());
    let ledger = place.replica(command).await;
    let why = format!(
        "applies the topic {:?}, not {:?}",
        place.topic(),
        other.topic()
    );
    until("both are stopped", async || {
        (ledger.partitions("stopped") == [0, 1]).then_some(())
    })
    .await;
    let (_, detail) = ledger.readiness().unwrap();
    let told = detail["partitions"][0]["detail"].as_str().unwrap();
    assert!(told.contains(&why), "{detail}");
    assert_eq!(outcomes(&place).await, 20);
    ledger.stop().await.expect(0);
}

/// How far the database has applied this partition.
async fn position(place: &Place, partition: i32) -> i64 {
    let query = format!("select position from millrace.positions where partition = {partition}");
    place.number(&query).await
}

#[tokio::test]
async fn a_contradiction_stops_its_partition_only() {
    let place = applied_and_left("contradiction").await;
    // A row where partition 0 is about to write one.
    place
        .execute(
            "insert into millrace.ledger (seq, log_offset, amount, occurred_at, recorded_at, partition,
                 verdict, id, digest, currency, debit_account, credit_account, kind, source)
             select seq + 1, log_offset, amount, occurred_at, recorded_at, partition, verdict,
                 gen_random_uuid(), digest, currency, debit_account, credit_account, kind, source
             from millrace.ledger where partition = 0 and seq = 9",
        )
        .await;
    publish(&place.publisher().await, &round(100)).await;
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0], "contradicts its own positions").await;
    until("the other goes on", async || {
        (position(&place, 1).await == 20).then_some(())
    })
    .await;
    assert_eq!(position(&place, 0).await, 10);
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_partition_that_somebody_locks_does_not_hold_back_the_others_of_its_lane() {
    let place = applied_and_left("locked").await;
    let mut holder = place.connect().await;
    let mut held = holder.begin().await.unwrap();
    sqlx::raw_sql("select from millrace.positions where partition = 0 for update")
        .execute(&mut *held)
        .await
        .unwrap();
    publish(&place.publisher().await, &round(100)).await;
    let ledger = place.ledger(1).await;
    until("the other goes on", async || {
        (position(&place, 1).await == 20).then_some(())
    })
    .await;
    assert_eq!(position(&place, 0).await, 10);
    held.rollback().await.unwrap();
    place.drained().await;
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);
}
