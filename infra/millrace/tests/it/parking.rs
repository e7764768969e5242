//! Parked records are replayed in order, or discarded, and the books end as they should.

use millrace_publisher::{Publisher, RawRecord};
use millrace_schemas::Transaction;

use crate::oracle::{acknowledged, assert_nothing_is_lost};
use crate::place::Place;
use crate::process::{Ended, Replica, until};
use crate::records::{publish, publish_raw, transfer};
use crate::stops::recreate;

/// The database refuses this amount while it is told to: a defect that a migration mends.
const REFUSED: i64 = 666;

async fn refuse(place: &Place) {
    place
        .execute("alter table millrace.ledger add constraint not_this check (amount <> 666)")
        .await;
}

async fn mend(place: &Place) {
    place
        .execute("alter table millrace.ledger drop constraint not_this")
        .await;
}

/// A few accounts whose records follow each other; every seventh of alice's is refused.
fn rounds(from: u128, count: u128) -> Vec<Transaction<'static>> {
    (from..from + count)
        .map(|n| {
            let debit = ["alice", "bob", "carol"][usize::try_from(n % 3).unwrap()];
            let amount = if n % 21 == 0 { REFUSED } else { 5 };
            transfer(
                n,
                debit,
                ["dave", "external:out"][usize::from(n % 2 == 0)],
                amount,
            )
        })
        .collect()
}

async fn balances(place: &Place) -> Vec<String> {
    let query = "select account, currency, debits, credits, transactions, last_occurred_at
         from reports.balances order by account, currency";
    place.rows(query).await
}

async fn replay(place: &Place, more: &[&str]) -> Ended {
    let mut arguments = vec!["parked", "replay", "--operator", "ann"];
    arguments.extend(more);
    place.run(&arguments).await
}

async fn open(place: &Place) -> i64 {
    let counted = "select coalesce(sum(parked_open), 0)::bigint from millrace.positions";
    place.number(counted).await
}

async fn garbage(publisher: &Publisher, key: &str) -> i64 {
    let record = RawRecord {
        key: Some(key.as_bytes()),
        payload: Some(b"\xde\xad\x1b[2J"),
        headers: &[("trace", b"\x00\xff")],
        partition: Some(0),
    };
    publish_raw(publisher, record).await.offset
}

/// The debits of each account are in the ledger in the order of the log.
async fn assert_order(place: &Place) {
    let broken = "select count(*) from (
             select log_offset < lag(log_offset) over (partition by partition, debit_account order by seq) as late
             from millrace.ledger) l
         where late";
    assert_eq!(place.number(broken).await, 0, "debits out of order");
}

#[tokio::test]
async fn what_is_mended_and_replayed_ends_as_if_it_had_been_good_from_the_start() {
    let place = Place::new("replay", 3).await;
    let good = Place::new("replay-good", 3).await;
    refuse(&place).await;
    let publisher = place.publisher().await;
    publish(&publisher, &rounds(0, 300)).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let held = open(&place).await;
    // Alice's records but for none before the first refused one, which is number 0.
    assert_eq!(held, 100);

    let listed = place.run(&["parked", "list"]).await.expect(0).out;
    assert!(listed.contains("database_refused\t1 open"), "{listed}");
    assert!(listed.contains("behind\t99 open"), "{listed}");
    assert!(listed.contains("key alice"), "{listed}");
    let dry = replay(&place, &["--key", "alice", "--dry-run"]).await;
    assert!(dry.out.contains("this was a dry run"), "{dry:?}");
    assert_eq!(open(&place).await, held, "a dry run changes nothing");
    // Not mended yet: nothing of alice goes on.
    let early = replay(&place, &["--parked-for", "database_refused"])
        .await
        .expect(1);
    assert!(early.out.contains("100 stay parked"), "{early:?}");
    assert_eq!(open(&place).await, held);

    mend(&place).await;
    // More of alice comes while she is held, and beside the replay.
    publish(&publisher, &rounds(300, 300)).await;
    let done = replay(&place, &["--key", "alice", "--reason", "INC-17"])
        .await
        .expect(0);
    assert!(done.out.contains("posted\t"), "{done:?}");
    place.drained().await;
    replay(&place, &["--all"]).await.expect(0);
    assert_eq!(open(&place).await, 0);
    let again = replay(&place, &["--all"]).await.expect(0);
    assert!(again.out.contains("no open record matches"), "{again:?}");
    // The lane posts alice directly again.
    publish(&publisher, &rounds(600, 3)).await;
    place.drained().await;
    assert_eq!(
        place
            .number("select count(*) from reports.transactions")
            .await,
        603
    );

    let others = good.ledger(1).await;
    publish(&good.publisher().await, &rounds(0, 603)).await;
    good.drained().await;
    assert_eq!(balances(&place).await, balances(&good).await);
    assert_order(&place).await;
    assert_nothing_is_lost(&place).await;
    place.verify().await;
    let kept = "select distinct resolution, operator from reports.parked where resolution_reason = 'INC-17'";
    assert_eq!(place.rows(kept).await, ["(replayed,ann)"]);
    for replica in [ledger, others] {
        replica.stop().await.expect(0);
    }
}

#[tokio::test]
async fn what_is_discarded_is_kept_and_lets_those_behind_it_go_on() {
    let place = Place::new("discard", 1).await;
    let publisher = place.publisher().await;
    publish(&publisher, &[transfer(1, "alice", "bob", 5)]).await;
    let offset = garbage(&publisher, "alice").await.to_string();
    publish(&publisher, &[transfer(2, "alice", "bob", 7)]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let place_of = ["--partition", "0", "--offset", &offset];

    let show: Vec<_> = ["parked", "show"].into_iter().chain(place_of).collect();
    let shown = place.run(&show).await.expect(0).out;
    assert!(shown.contains("de ad 1b 5b 32 4a"), "{shown}");
    assert!(shown.contains("header trace: 0x00ff"), "{shown}");
    assert!(
        !shown.contains('\u{1b}'),
        "nothing reaches the terminal raw"
    );
    let still = replay(&place, &["--key", "alice"]).await.expect(1);
    assert!(still.out.contains("2 stay parked"), "{still:?}");

    let discard: Vec<_> = ["parked", "discard", "--operator", "ann"]
        .into_iter()
        .chain(place_of)
        .collect();
    place.run(&discard).await.expect(64).names(&["--reason"]);
    let discard = [&discard[..], &["--reason", "not ours"]].concat();
    let done = place.run(&discard).await.expect(0).out;
    assert!(done.contains("discarded\t1"), "{done}");
    let again = place.run(&discard).await.expect(0).out;
    assert!(again.contains("no open record matches"), "{again}");
    assert_eq!(
        open(&place).await,
        1,
        "the one behind it waits for a replay"
    );
    replay(&place, &["--key", "alice"]).await.expect(0);

    let rows = "select resolution, resolution_reason, operator from reports.parked order by seq";
    assert_eq!(
        place.rows(rows).await,
        ["(discarded,\"not ours\",ann)", "(replayed,replayed,ann)"]
    );
    let counts = "select posted, parked, discarded, holds from reports.conservation";
    assert_eq!(place.rows(counts).await, ["(2,0,1,t)"]);
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_replay_overdraws_nobody_and_keeps_the_order() {
    let place = Place::new("replay-limits", 2).await;
    place
        .run(&["accounts", "default", "--overdraft-limit", "0"])
        .await
        .expect(0);
    refuse(&place).await;
    let publisher = place.publisher().await;
    let ledger = place.ledger(1).await;
    publish(&publisher, &[transfer(1, "external:in", "alice", 700)]).await;
    place.drained().await;
    // The refused one would have left her 34: of those behind it only the small ones are covered then.
    let mut all = vec![transfer(2, "alice", "bob", REFUSED)];
    all.extend((10..20).map(|n| transfer(n, "alice", "bob", if n % 2 == 0 { 100 } else { 8 })));
    publish(&publisher, &all).await;
    place.drained().await;
    assert_eq!(open(&place).await, 11);
    mend(&place).await;
    let done = replay(&place, &["--key", "alice"]).await.expect(0);
    assert!(done.out.contains("posted\t5\n"), "{done:?}");
    assert!(
        done.out.contains("insufficient_funds\t6\n") || done.out.contains("insufficient_funds\t5"),
        "{done:?}"
    );
    let overdrawn = "select count(*) from reports.balances where balance < 0 and account = 'alice'";
    assert_eq!(place.number(overdrawn).await, 0);
    assert_order(&place).await;
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_replay_beside_a_busy_lane_is_exact() {
    let place = Place::new("replay-busy", 2).await;
    place
        .execute("alter table millrace.ledger add constraint not_this check (amount % 50 <> 7)")
        .await;
    let load = place.start(&[
        "generate",
        "--count",
        "30000",
        "--rate",
        "3000",
        "--accounts",
        "40",
        "--seed",
        "9",
    ]);
    let ledger = place.ledger(1).await;
    until("many are parked", async || {
        (open(&place).await > 500).then_some(())
    })
    .await;
    mend(&place).await;
    while open(&place).await > 0 {
        // More are parked meanwhile, behind those that are still open.
        replay(&place, &["--all"]).await.expect(0);
    }
    let acknowledged = acknowledged(&load.end().await);
    place.drained().await;
    replay(&place, &["--all"]).await.expect(0);
    assert_eq!(
        place
            .number("select count(*) from reports.transactions")
            .await,
        i64::try_from(acknowledged).unwrap()
    );
    assert_order(&place).await;
    assert_nothing_is_lost(&place).await;
    place.verify().await;
    assert!(ledger.metric("millrace_ledger_order_violations_total") < 0.5);
    ledger.stop().await.expect(0);
}

/// One request to the admin port: status and body.
fn ask(ledger: &Replica, request: &str) -> (u16, serde_json::Value) {
    let (status, body) = ledger.send(request).unwrap();
    (
        status,
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")),
    )
}

fn post(path: &str, host: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn the_admin_port_does_the_same_on_loopback_only() {
    let place = Place::new("replay-admin", 1).await;
    let publisher = place.publisher().await;
    let offset = garbage(&publisher, "alice").await;
    publish(&publisher, &[transfer(2, "alice", "bob", 7)]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");

    let (status, listed) = ask(&ledger, &get("/parked?parked_for=undecodable"));
    assert_eq!(status, 200, "{listed}");
    assert_eq!(listed["open"].as_array().unwrap().len(), 1);
    assert_eq!(listed["records"][0]["key"]["text"], "alice");
    let (status, shown) = ask(&ledger, &get(&format!("/parked/0/{offset}")));
    assert_eq!(
        (status, &shown["value"]["hex"]),
        (200, &"dead1b5b324a".into())
    );
    assert_eq!(ask(&ledger, &get("/parked/0/999")).0, 404);
    let (status, nowhere) = ask(&ledger, &get("/openapi.json"));
    assert_eq!(status, 404);
    let told = nowhere["detail"].as_str().unwrap();
    assert!(told.contains("/parked/replay"), "{told}");
    assert_eq!(ask(&ledger, &get("/parked?limit=0")).0, 400);

    let all = r#"{"operator": "ann", "key": "alice"}"#;
    assert_eq!(
        ask(&ledger, &post("/parked/replay", "evil.example", all)).0,
        403
    );
    let (status, told) = ask(&ledger, &post("/parked/discard", "localhost", all));
    assert_eq!((status, &told["field"]), (400, &"reason".into()), "{told}");
    let discard = format!(
        r#"{{"operator": "ann", "partition": 0, "offset": {offset}, "reason": "not ours"}}"#
    );
    let (status, told) = ask(&ledger, &post("/parked/discard", "localhost", &discard));
    assert_eq!(
        (status, &told["verdicts"]["discarded"]),
        (200, &1.into()),
        "{told}"
    );
    let (status, told) = ask(&ledger, &post("/parked/replay", "127.0.0.1:1", all));
    assert_eq!(
        (status, &told["verdicts"]["posted"]),
        (200, &1.into()),
        "{told}"
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn many_that_wait_for_one_are_replayed_in_a_few_rounds() {
    let place = Place::new("replay-many", 1).await;
    let publisher = place.publisher().await;
    garbage(&publisher, "hot").await;
    let count = 20_000;
    let waiting: Vec<_> = (1..=count).map(|n| transfer(n, "hot", "cold", 1)).collect();
    publish(&publisher, &waiting).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let garbage = ["--parked-for", "undecodable", "--reason", "not ours"];
    let discard = [&["parked", "discard"], &garbage[..]].concat();
    place.run(&discard).await.expect(0);
    let begun = std::time::Instant::now();
    let done = replay(&place, &["--key", "hot"]).await.expect(0);
    assert!(done.out.contains("posted\t20000"), "{done:?}");
    let taken = begun.elapsed();
    assert!(taken.as_secs() < 40, "{taken:?}");
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn two_that_were_parked_at_one_offset_are_told_apart() {
    let place = Place::new("park-twins", 2).await;
    assert_eq!(garbage(&place.publisher().await, "alice").await, 0);
    let ledger = place.ledger(1).await;
    place.applied(1).await;
    ledger.stop().await.expect(0);
    recreate(&place).await;
    assert_eq!(garbage(&place.publisher().await, "alice").await, 0);
    let group = place.topic().to_owned();
    let accept = ["--partition", "0", "--group", &group, "--reason", "INC-17"];
    let accept = [&["positions", "accept", "--at", "start"], &accept[..]].concat();
    place.run(&accept).await.expect(0);
    let ledger = place.ledger(1).await;
    place.drained().await;
    let discard = [
        "parked",
        "discard",
        "--partition",
        "0",
        "--reason",
        "not ours",
    ];
    let both = [&discard[..], &["--offset", "0"]].concat();
    let refused = place.run(&both).await.expect(1);
    refused.names(&["several open records", "0 or 1"]);
    let one = [&discard[..], &["--offset", "0", "--seq", "1"]].concat();
    place.run(&one).await.expect(0);
    assert_eq!(open(&place).await, 1);
    let listed = place.run(&["parked", "list"]).await.expect(0);
    assert!(listed.out.contains("record 0:0\tseq 0\t"), "{listed:?}");
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn more_than_a_round_without_keys_is_looked_through() {
    let place = Place::new("replay-keyless", 1).await;
    let publisher = place.publisher().await;
    let record = RawRecord {
        payload: Some(b"garbage"),
        ..RawRecord::default()
    };
    let mut receipts = Vec::new();
    for _ in 0..5_010 {
        receipts.push(publisher.publish_raw(record).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let ledger = place.ledger_command(&["--lanes", "1", "--park-brake-percent", "100"]);
    let ledger = place.replica(ledger).await;
    place.drained().await;
    let shown = replay(&place, &["--all", "--dry-run"]).await.expect(1);
    assert!(shown.out.contains("5010 stay parked"), "{shown:?}");
    ledger.stop().await.expect(0);
}
