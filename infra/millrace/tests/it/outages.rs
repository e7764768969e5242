//! Postgres and Kafka go away in mid-load: replicas wait, say so, and go on.

use std::time::Duration;

use crate::oracle::{acknowledged, assert_all_posted_in_order};
use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{publish, transfer};
use crate::servers::OwnServers;

/// How long Postgres is away.
const OUTAGE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_outage_of_postgres_or_kafka_is_a_pause() {
    let servers = OwnServers::start("outages");
    let place = Place::on(servers.addresses.clone(), "outage", 6).await;
    let mut replicas = [place.ledger(1).await, place.ledger(1).await];
    let pids = replicas.each_mut().map(|replica| replica.process().pid());
    until("both have a share", async || {
        let owned = replicas.each_ref().map(|r| r.partitions("active").len());
        (owned == [3, 3]).then_some(())
    })
    .await;
    let load = place.start(&[
        "generate",
        "--count",
        "1000000",
        "--rate",
        "500",
        "--accounts",
        "300",
        "--external-share",
        "0.2",
    ]);
    progress(&place).await;

    servers.postgres("stop");
    all_unready(&replicas).await;
    place.let_run(OUTAGE).await;
    all_unready(&replicas).await;
    servers.postgres("start");
    goes_on(&place, &replicas).await;

    servers.postgres("kill");
    all_unready(&replicas).await;
    servers.postgres("start");
    goes_on(&place, &replicas).await;

    servers.kafka("stop");
    all_unready(&replicas).await;
    servers.kafka("start");
    goes_on(&place, &replicas).await;

    servers.kafka("kill");
    servers.kafka("start");
    goes_on(&place, &replicas).await;

    load.signal("TERM");
    let acknowledged = acknowledged(&load.end().await);
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, acknowledged);
    let parked = "select count(*) from millrace.parked";
    assert_eq!(place.number(parked).await, 0, "an outage parks nothing");
    for (replica, pid) in replicas.iter_mut().zip(pids) {
        assert!(replica.process().is_running(), "no process died");
        assert_eq!(replica.process().pid(), pid);
        assert!(!replica.log().contains("panicked"));
    }
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}

async fn all_unready(replicas: &[Replica]) {
    for replica in replicas {
        replica.becomes_unready().await;
    }
}

async fn goes_on(place: &Place, replicas: &[Replica]) {
    for replica in replicas {
        replica.becomes_ready().await;
    }
    progress(place).await;
}

/// Waits until clearly more is applied than now.
async fn progress(place: &Place) {
    let query = "select coalesce(sum(position), 0)::bigint from millrace.positions";
    let before = place.number(query).await;
    until("something is applied", async || {
        (place.number(query).await > before + 500).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_starts_before_its_servers_waits_for_them() {
    let servers = OwnServers::start("late");
    let place = Place::on(servers.addresses.clone(), "late", 2).await;
    servers.kafka("stop");
    servers.postgres("stop");
    let mut ledger = place.ledger(2).await;
    ledger.becomes_unready().await;
    assert_eq!(ledger.get("/livez").unwrap().0, 200);
    servers.kafka("start");
    ledger.becomes_unready().await;
    servers.postgres("start");
    ledger.becomes_ready().await;
    place
        .run(&["generate", "--count", "500", "--accounts", "50"])
        .await
        .expect(0);
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, 500);
    assert!(ledger.process().is_running());
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn partitions_that_moved_while_postgres_was_away_go_on() {
    let servers = OwnServers::start("moved");
    let place = Place::on(servers.addresses.clone(), "moved", 4).await;
    let publisher = place.publisher().await;
    let round = |from: u128| -> Vec<_> {
        (from..from + 200)
            .map(|n| transfer(n, &format!("a-{n}"), "b", 1))
            .collect()
    };
    publish(&publisher, &round(0)).await;
    let stayer = place.ledger(1).await;
    place.drained().await;

    servers.postgres("stop");
    stayer.becomes_unready().await;
    publish(&publisher, &round(200)).await;
    let assigned = |replica: &Replica| replica.log().matches("partitions assigned").count();
    let before = assigned(&stayer);
    let guest = place.ledger(1).await;
    until("the guest has partitions", async || {
        (assigned(&guest) > 0).then_some(())
    })
    .await;
    guest.stop().await.expect(0);
    until("they are back", async || {
        (assigned(&stayer) > before).then_some(())
    })
    .await;
    servers.postgres("start");
    stayer.becomes_ready().await;
    place.drained().await;
    publish(&publisher, &round(400)).await;
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, 600);
    stayer.stop().await.expect(0);
}
