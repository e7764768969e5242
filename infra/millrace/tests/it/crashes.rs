//! Replicas that die or leave: counts, sums and order are exact afterwards.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::oracle::{acknowledged, assert_all_posted_in_order};
use crate::place::Place;
use crate::process::{until, until_within};
use crate::records::{publish, transfer};

const KILLS: u32 = 10;

#[tokio::test]
async fn replicas_killed_in_mid_load_lose_nothing_and_post_nothing_twice() {
    let place = Place::new("kill", 6).await;
    let mut random = SmallRng::seed_from_u64(20_260_102);
    let load = place.start(&[
        "generate",
        "--count",
        "1000000",
        "--rate",
        "1000",
        "--accounts",
        "300",
        "--skew",
        "zipf:1.0",
        "--external-share",
        "0.2",
        "--seed",
        "5",
    ]);
    let mut replicas = [place.ledger(2).await, place.ledger(2).await];
    for kill in 0..KILLS {
        let victim = random.random_range(0..replicas.len());
        let before = posted(&place).await;
        until(&format!("the victim of kill {kill} has work"), async || {
            let works = !replicas[victim].partitions("active").is_empty();
            (works && posted(&place).await > before).then_some(())
        })
        .await;
        let moment = Duration::from_millis(random.random_range(0..700));
        place.let_run(moment).await;
        replicas[victim].process().kill();
        replicas[victim] = place.ledger(2).await;
    }
    load.signal("TERM");
    let acknowledged = acknowledged(&load.end().await);
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, acknowledged);
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}

async fn posted(place: &Place) -> i64 {
    place
        .number("select coalesce(sum(next_seq), 0)::bigint from millrace.positions")
        .await
}

#[tokio::test]
async fn a_replica_that_is_told_to_stop_hands_over_at_once() {
    let place = Place::new("handover", 4).await;
    let publisher = place.publisher().await;
    let leaver = place.ledger(2).await;
    until("the first owns everything", async || {
        (leaver.partitions("active").len() == 4).then_some(())
    })
    .await;
    let stayer = place.ledger(2).await;
    until("the second has its share", async || {
        (stayer.partitions("active").len() == 2).then_some(())
    })
    .await;
    let round = |from: u128| -> Vec<_> {
        (from..from + 200)
            .map(|n| transfer(n, &format!("a-{}", n % 20), "b", 1))
            .collect()
    };
    publish(&publisher, &round(0)).await;
    let ended = leaver.stop().await.expect(0);
    assert!(ended.err.contains("stopped"), "{ended:?}");
    // Far sooner than its session would time out in the default configuration, which is 45 s.
    until_within(
        Duration::from_secs(20),
        "the other takes over",
        async || (stayer.partitions("active").len() == 4).then_some(()),
    )
    .await;
    publish(&publisher, &round(200)).await;
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, 400);
    stayer.stop().await.expect(0);
}

#[tokio::test]
async fn a_lane_beyond_the_partition_count_does_not_join_the_group() {
    let place = Place::new("surplus", 2).await;
    let ledger = place.ledger(4).await;
    until("two lanes wait", async || {
        let told = ledger.log().matches("more lanes than partitions").count();
        (told == 2).then_some(())
    })
    .await;
    until("the others have a partition each", async || {
        let log = ledger.log();
        let assigned = |lane| log.contains(&format!("lane{{number={lane}}}: partitions assigned"));
        (assigned(0) && assigned(1)).then_some(())
    })
    .await;
    until("both are active", async || {
        (ledger.partitions("active") == [0, 1]).then_some(())
    })
    .await;
    ledger.becomes_ready().await;
    ledger.stop().await.expect(0);
}
