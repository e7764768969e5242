//! An owner that is frozen in the middle of a batch holds its locks: its connection is ended, and never
//! that of one that works.

use std::time::{Duration, Instant};

use crate::oracle::{acknowledged, assert_all_posted_in_order};
use crate::place::Place;
use crate::process::{Replica, look_for, until};
use crate::records::{publish, transfer};

/// Backends of lanes that hold a partition's lock and wait for their client.
const HOLDERS: &str = "select count(*) from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.granted and l.classid::bigint = 1296649292
        and a.datname = current_database() and a.wait_event = 'ClientRead'";

/// Stops the process at a moment at which it holds a partition's lock.
async fn freeze_in_a_batch(place: &Place, victim: &mut Replica) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while Instant::now() < deadline {
        victim.process().signal("STOP");
        place.let_run(Duration::from_millis(50)).await;
        if place.number(HOLDERS).await > 0 {
            return;
        }
        victim.process().signal("CONT");
        place.let_run(Duration::from_millis(7)).await;
    }
    panic!("the replica was never caught in a batch");
}

#[tokio::test]
async fn a_frozen_owner_is_ended_and_finds_itself_fenced_when_it_wakes() {
    let place = Place::new("frozen", 2).await;
    let load = place.start(&[
        "generate",
        "--count",
        "1000000",
        "--rate",
        "3000",
        "--accounts",
        "300",
        "--seed",
        "5",
    ]);
    let mut victim = place.ledger(1).await;
    until("the first owns both", async || {
        (victim.partitions("active").len() == 2).then_some(())
    })
    .await;
    freeze_in_a_batch(&place, &mut victim).await;
    let other = place.ledger(1).await;
    until("the other has both and goes on", async || {
        (other.partitions("active").len() == 2).then_some(())
    })
    .await;
    let before = place
        .number("select sum(position)::bigint from millrace.positions")
        .await;
    until("the partitions move", async || {
        let query = format!("select sum(position)::bigint - {before} from millrace.positions");
        (place.number(&query).await > 3_000).then_some(())
    })
    .await;
    until("the frozen owner's connection is ended", async || {
        let told = "ended the connection of an owner that is frozen";
        other.log().contains(told).then_some(())
    })
    .await;
    assert!(other.metric("millrace_ledger_frozen_owners_ended_total") > 0.0);
    victim.process().signal("CONT");
    until("the first has its share again", async || {
        (victim.partitions("active").len() == 1).then_some(())
    })
    .await;
    load.signal("TERM");
    let acknowledged = acknowledged(&load.end().await);
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, acknowledged);
    for replica in [victim, other] {
        replica.stop().await.expect(0);
    }
}

/// Waits until somebody holds the lock of a partition.
pub async fn until_locked(place: &Place) {
    until("the lock is held", async || {
        let held = "select count(*) from pg_locks where locktype = 'advisory' and granted
             and classid::bigint = 1296649292";
        (place.number(held).await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_works_is_left_alone_however_long_it_takes() {
    let place = Place::new("working", 1).await;
    let ledger = place.ledger(1).await;
    publish(&place.publisher().await, &[transfer(1, "a", "b", 1)]).await;
    place.applied(1).await;
    let holder = async {
        // Neither frozen while it computes nor, a moment later, when it has just ended.
        place
            .execute(
                "begin; select pg_advisory_xact_lock(1296649292, 0), pg_sleep(7);
                 select pg_sleep(0.1); commit",
            )
            .await;
    };
    let waiter = async {
        until_locked(&place).await;
        publish(&place.publisher().await, &[transfer(2, "a", "b", 1)]).await;
        let early = look_for(Duration::from_secs(5), async || {
            let position = "select position from millrace.positions";
            (place.number(position).await > 1).then_some(())
        })
        .await;
        assert!(early.is_none(), "the batch waits for the lock");
    };
    // The statement fails if its connection is ended.
    tokio::join!(holder, waiter);
    place.applied(2).await;
    place.verify().await;
    assert!(!ledger.log().contains("frozen"), "{}", ledger.log());
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn an_operator_ends_another_that_is_frozen_with_the_lock() {
    let place = Place::new("frozen-operator", 1).await;
    let garbage = millrace_publisher::RawRecord {
        key: Some(b"alice"),
        payload: Some(b"garbage"),
        ..millrace_publisher::RawRecord::default()
    };
    crate::records::publish_raw(&place.publisher().await, garbage).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let mut frozen = place.connect().await;
    sqlx::raw_sql("begin; select pg_advisory_xact_lock(1296649292, 0)")
        .execute(&mut frozen)
        .await
        .unwrap();
    let discard = [
        "parked", "discard", "--key", "alice", "--reason", "not ours",
    ];
    place.run(&discard).await.expect(0);
    let ended = sqlx::raw_sql("commit").execute(&mut frozen).await;
    assert!(ended.is_err(), "its connection is ended");
    place.verify().await;
    ledger.stop().await.expect(0);
}
