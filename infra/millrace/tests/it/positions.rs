//! What operators accept: new incarnations after a gap, another log or an older database.

use millrace_schemas::Transaction;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{account_in, publish, transfer};
use crate::rewrite::Copy;
use crate::stops::recreate;
use crate::tampering::names;

/// Ten for each of two partitions.
fn round(from: u128) -> Vec<Transaction<'static>> {
    let accounts = [account_in(0, 2, "a"), account_in(1, 2, "a")];
    (from..from + 20)
        .map(|n| transfer(n, &accounts[usize::from(n % 2 == 1)], "external:out", 1))
        .collect()
}

async fn accept(place: &Place, partition: &str, more: &[&str]) -> String {
    let group = place.topic().to_owned();
    let mut arguments = vec!["positions", "accept", "--partition", partition];
    arguments.extend(["--group", &group, "--operator", "ann", "--reason", "INC-17"]);
    arguments.extend(more);
    place.run(&arguments).await.expect(0).out
}

async fn stopped(ledger: &Replica, partitions: &[i64], why: &str) {
    until(&format!("{partitions:?} are stopped"), async || {
        (ledger.partitions("stopped") == partitions).then_some(())
    })
    .await;
    assert!(ledger.log().contains(why), "no {why:?} in {}", ledger.log());
}

/// Per partition and incarnation: start, position, posted, duplicates; all of them must hold.
async fn conservation(place: &Place) -> Vec<String> {
    assert_eq!(
        place
            .number("select count(*) from reports.conservation where not holds")
            .await,
        0
    );
    place
        .rows(
            "select partition, incarnation, start_offset, position, posted, duplicate
             from reports.conservation order by partition, incarnation",
        )
        .await
}

#[tokio::test]
async fn a_gap_is_accepted_and_the_partition_goes_on_without_a_restart() {
    let place = Place::new("accept-gap", 2).await;
    let publisher = place.publisher().await;
    publish(&publisher, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    ledger.stop().await.expect(0);
    publish(&publisher, &round(100)).await;
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(place.topic(), 0, Offset::Offset(15))
        .unwrap();
    let admin = place.kafka_admin();
    admin
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0], "starts at 15, beyond the position 10").await;
    let shown = accept(&place, "0", &["--dry-run"]).await;
    assert!(
        shown.contains("offsets 10 to 14: 5 are left out"),
        "{shown}"
    );
    assert_eq!(conservation(&place).await.len(), 2, "only shown");
    let lost = place.run(&["verify"]).await.expect(1);
    let said = "FAILED log: partition 0, offset 10: the log begins at 15: 5 offsets were deleted";
    assert!(lost.out.contains(said), "{lost:?}");
    accept(&place, "0", &[]).await;
    until("the partition goes on", async || {
        (ledger.partitions("active") == [0, 1]).then_some(())
    })
    .await;
    place.drained().await;
    assert_eq!(
        conservation(&place).await,
        ["(0,1,0,10,10,0)", "(0,2,15,20,5,0)", "(1,1,0,20,20,0)"]
    );
    let kept = "select partition, incarnation, previous_position, start_offset, reason, operator
         from millrace.incarnations";
    assert_eq!(place.rows(kept).await, ["(0,2,10,15,INC-17,ann)"]);
    let verified = place.run(&["verify"]).await.expect(0).out;
    for said in [
        "ACCEPTED partition 0, incarnation 2: applied up to offset 10, went on at 15; ",
        " by \"ann\": \"INC-17\"",
        "(10 offsets are of earlier incarnations",
        "everything holds, beside what was accepted 1 times",
    ] {
        assert!(verified.contains(said), "no {said:?} in {verified}");
    }
    let listed = place.run(&["positions", "list"]).await.expect(0).out;
    assert!(listed.contains("incarnation 2\tposition 20"), "{listed}");
    assert!(listed.contains("INC-17"), "{listed}");
    // Nothing is wrong any more.
    let ended = place.run(&[
        "positions",
        "accept",
        "--partition",
        "0",
        "--reason",
        "again",
    ]);
    ended
        .await
        .expect(64)
        .names(&["partition 0", "there is nothing to accept"]);
    ledger.stop().await.expect(0);
    assert_acceptances_are_guarded(&place).await;
}

/// What was accepted by whom, when and why cannot be changed unseen. Nobody may be connected.
async fn assert_acceptances_are_guarded(place: &Place) {
    for (change, said) in [
        (
            "update incarnations set previous_position = 12",
            "what was accepted follows on offset 12, the batch before ended at 10",
        ),
        (
            "insert into incarnations values (1, 2, 90, 20, 25, 'none', 'nobody')",
            "no batch has begun what was accepted",
        ),
        (
            "delete from incarnations",
            "nobody has accepted that incarnation 2 begins here",
        ),
        (
            "update incarnations set operator = 'bob'",
            "do not lead to the stored chain head",
        ),
    ] {
        let copy = Copy::of(place).await;
        copy.change(change).await;
        let ended = copy.run(place, &["verify"]).await.expect(1);
        assert!(names(&ended, said), "{change}: {ended:?}");
    }
}

#[tokio::test]
async fn a_topic_that_was_recreated_and_has_grown_past_the_position_is_recognised() {
    let place = Place::new("accept-recreated", 2).await;
    publish(&place.publisher().await, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    ledger.stop().await.expect(0);
    recreate(&place).await;
    let publisher = place.publisher().await;
    // Ten of each partition were posted already; twenty are new.
    for from in [100, 0, 200] {
        publish(&publisher, &round(from)).await;
    }
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0, 1], "is not the one that was applied").await;
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        20
    );
    for partition in ["0", "1"] {
        let told = accept(&place, partition, &[]).await;
        assert!(told.contains("goes on at 0 as incarnation 2"), "{told}");
    }
    place.drained().await;
    assert_eq!(
        conservation(&place).await,
        [
            "(0,1,0,10,10,0)",
            "(0,2,0,30,20,10)",
            "(1,1,0,10,10,0)",
            "(1,2,0,30,20,10)"
        ]
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_database_that_lost_what_it_had_committed_is_recognised() {
    let place = Place::new("accept-back", 2).await;
    let publisher = place.publisher().await;
    publish(&publisher, &round(0)).await;
    let ledger = place.ledger(1).await;
    place.applied(20).await;
    ledger.stop().await.expect(0);
    let (name, older) = (place.topic(), format!("{}-older", place.topic()));
    place
        .execute_at_server(&format!("create database \"{older}\" template \"{name}\""))
        .await;
    publish(&publisher, &round(100)).await;
    // This lane sees it itself; the next one is told by the broker.
    let ledger = place.ledger(1).await;
    place.applied(40).await;
    place.let_run(std::time::Duration::from_secs(2)).await;
    place
        .execute_at_server(&format!("drop database \"{name}\" with (force)"))
        .await;
    place
        .execute_at_server(&format!("alter database \"{older}\" rename to \"{name}\""))
        .await;
    stopped(&ledger, &[0, 1], "has failed over or was restored").await;
    ledger.stop().await.expect(0);
    let ledger = place.ledger(1).await;
    stopped(&ledger, &[0, 1], "has failed over or was restored").await;
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        20
    );
    for partition in ["0", "1"] {
        let told = accept(&place, partition, &[]).await;
        assert!(told.contains("goes on at 10 as incarnation 2"), "{told}");
    }
    place.drained().await;
    assert_eq!(
        conservation(&place).await,
        [
            "(0,1,0,10,10,0)",
            "(0,2,10,20,10,0)",
            "(1,1,0,10,10,0)",
            "(1,2,10,20,10,0)"
        ]
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

/// What the group has committed of a partition.
fn committed(place: &Place, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", place.brokers())
        .set("group.id", place.topic())
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(place.topic(), partition);
    let patience = std::time::Duration::from_secs(10);
    let found = consumer.committed_offsets(list, patience).unwrap();
    match found.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

#[tokio::test]
async fn the_broker_is_told_of_every_position_and_at_a_stop_of_the_last() {
    let place = Place::new("hints", 2).await;
    let publisher = place.publisher().await;
    let ledger = place.ledger(1).await;
    for round_number in 1..=3 {
        publish(&publisher, &round(100 * round_number)).await;
        let position = 10 * i64::try_from(round_number).unwrap();
        until("the broker knows the position", async || {
            (committed(&place, 0) == Some(position)).then_some(())
        })
        .await;
    }
    publish(&publisher, &round(400)).await;
    place.applied(80).await;
    ledger.stop().await.expect(0);
    assert_eq!(committed(&place, 0), Some(40));
    assert_eq!(committed(&place, 1), Some(40));
}
