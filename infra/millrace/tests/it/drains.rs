//! Stops and stalls: a replica that is told to stop leaves in time, and one that stands still says so.

use std::time::{Duration, Instant};

use crate::frozen::until_locked;
use crate::oracle::{acknowledged, assert_all_posted_in_order};
use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{publish, transfer};
use crate::servers::{OwnServers, signal};

#[tokio::test]
async fn a_partition_that_stands_still_is_named_and_read_anew() {
    let servers = OwnServers::start("stalls");
    let place = Place::on(servers.addresses.clone(), "stall", 2).await;
    let count = 200_000.to_string();
    let load = place
        .run(&[
            "generate",
            "--count",
            &count,
            "--accounts",
            "300",
            "--seed",
            "3",
        ])
        .await;
    let mut command = place.ledger_command(&["--lanes", "1", "--stall-after", "3s"]);
    // Or it would leave the group first, and say that.
    command.env("MILLRACE_KAFKA_SESSION_TIMEOUT_MS", "60000");
    let ledger = place.replica(command).await;
    until("it is in the middle of the log", async || {
        let applied = "select coalesce(sum(position), 0)::bigint from millrace.positions";
        (place.number(applied).await > 10_000).then_some(())
    })
    .await;
    servers.signal_kafka("STOP");
    until("both partitions are stalled", async || {
        (ledger.partitions("stalled") == [0, 1]).then_some(())
    })
    .await;
    let detail = ledger.becomes_unready().await.to_string();
    assert!(detail.contains("nothing was applied for"), "{detail}");
    assert!((ledger.metric("millrace_ledger_partition_stalled") - 2.0).abs() < 0.1);
    servers.signal_kafka("CONT");
    place.drained().await;
    ledger.becomes_ready().await;
    assert!(ledger.metric("millrace_ledger_partition_stalled") < 0.1);
    assert_eq!(
        assert_all_posted_in_order(&place).await,
        acknowledged(&load)
    );
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_partition_whose_lock_another_holds_for_long_is_stalled_and_says_why() {
    let place = Place::new("stall-lock", 1).await;
    let ledger = place.ledger_command(&["--lanes", "1", "--stall-after", "3s"]);
    let ledger = place.replica(ledger).await;
    ledger.becomes_ready().await;
    let holder =
        place.execute("begin; select pg_advisory_xact_lock(1296649292, 0), pg_sleep(15); commit");
    let watcher = async {
        until_locked(&place).await;
        publish(&place.publisher().await, &[transfer(1, "a", "b", 1)]).await;
        until("the partition is stalled and says why", async || {
            let (_, detail) = ledger.readiness()?;
            let problems = detail["problems"].to_string();
            (problems.contains("partition 0 is stalled: nothing was applied for")
                && problems.contains("lock timeout"))
            .then_some(())
        })
        .await;
        assert!((ledger.metric("millrace_ledger_partition_stalled") - 1.0).abs() < 0.1);
        assert!(ledger.metric("millrace_ledger_partition_active") < 0.1);
    };
    tokio::join!(holder, watcher);
    place.drained().await;
    ledger.becomes_ready().await;
    ledger.stop().await.expect(0);
}

/// The server process of the lane's connection.
async fn backend(place: &Place) -> String {
    let found = "select pid::bigint from pg_stat_activity
         where datname = current_database() and application_name like 'millrace ledger %'";
    place.number(found).await.to_string()
}

/// A replica whose batch in hand does not end: its server process is stopped.
async fn stuck(place: &Place, more: &[&str]) -> (Replica, String) {
    let arguments = [&["--lanes", "1"], more].concat();
    let ledger = place.replica(place.ledger_command(&arguments)).await;
    ledger.becomes_ready().await;
    let backend = backend(place).await;
    signal(&backend, "STOP");
    publish(&place.publisher().await, &[transfer(1, "a", "b", 1)]).await;
    place.let_run(Duration::from_secs(1)).await;
    (ledger, backend)
}

#[tokio::test]
async fn a_batch_that_does_not_end_is_left_when_the_drain_timeout_is_over() {
    let place = Place::new("drain", 1).await;
    let (ledger, backend) = stuck(&place, &["--drain-timeout", "2s"]).await;
    let told_at = Instant::now();
    let ended = ledger.stop().await.expect(1);
    assert!(told_at.elapsed() >= Duration::from_secs(2));
    ended.names(&["the lanes have not left in time"]);
    signal(&backend, "CONT");
    goes_on(&place).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let place = Place::new("second-signal", 1).await;
    let (mut ledger, backend) = stuck(&place, &[]).await;
    ledger.process().signal("TERM");
    until("the first signal is heard", async || {
        ledger.log().contains("stopping").then_some(())
    })
    .await;
    ledger.process().signal("TERM");
    ledger.ends().await.expect(130);
    signal(&backend, "CONT");
    goes_on(&place).await;
}

/// The next replica applies what the one before has left.
async fn goes_on(place: &Place) {
    publish(&place.publisher().await, &[transfer(2, "a", "b", 1)]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(place).await, 2);
    ledger.stop().await.expect(0);
}
