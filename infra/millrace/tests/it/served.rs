//! A database that serves some of a topic's partitions, to whoever asks it for others.

use millrace_publisher::RawRecord;
use serde_json::Value;

use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{account_in, publish, publish_raw, transfer};
use crate::split::{Split, drained, half_of};

/// A database of two partitions of a topic of four, each with a record, and its ledger.
struct Half {
    whole: Place,
    low: Place,
    ledger: Replica,
}

impl Half {
    async fn new(name: &str) -> Self {
        let whole = Place::new(name, 4).await;
        let low = half_of(&whole, 0).await;
        let publisher = whole.publisher().await;
        let one_each = (0..4).map(|partition| transfer(partition, &account(partition), "b", 1));
        publish(&publisher, &one_each.collect::<Vec<_>>()).await;
        let ledger = low.ledger(1).await;
        drained(&low, 0).await;
        ledger.becomes_ready().await;
        assert_eq!(ledger.partitions("active"), [0, 1]);
        Self { whole, low, ledger }
    }

    async fn posted(&self) -> i64 {
        let posted = "select count(*) from reports.transactions";
        self.low.number(posted).await
    }
}

/// An account whose debits are in this partition of four.
fn account(partition: u128) -> String {
    account_in(i32::try_from(partition).unwrap(), 4, "a")
}

#[tokio::test]
async fn a_database_that_has_not_read_the_topic_yet_tells_of_any_other_partition() {
    let whole = Place::new("unread", 4).await;
    let low = half_of(&whole, 0).await;
    let query = low.service("query").await;
    let ask = query
        .http
        .get("/v1/partitions?at_least=2147483647:0&wait_ms=0");
    assert_eq!(ask.await.expect(400).json()["code"], "partition_not_served");
}

#[tokio::test]
async fn whoever_asks_a_database_for_a_partition_of_another_is_told() {
    let half = Half::new("served").await;
    let query = half.low.service("query").await;
    let get = async |path: &str, status: u16| query.http.get(path).await.expect(status).json();
    let partitions = get("/v1/partitions?at_least=1:0", 200).await;
    let numbers = partitions["partitions"].as_array().unwrap().iter();
    assert_eq!(numbers.map(|p| &p["partition"]).collect::<Vec<_>>(), [0, 1]);
    let problem = get("/v1/partitions?at_least=0:0,2:0", 400).await;
    assert_eq!(problem["code"], "partition_not_served");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("serves 0-1"), "{detail}");
    let nowhere = get("/v1/partitions?at_least=9:0&wait_ms=0", 504).await;
    assert_ne!(nowhere["code"], "partition_not_served", "{nowhere}");
    get("/v1/partitions?at_least=2147483647:0&wait_ms=0", 504).await;
    let fresh = get("/v1/freshness", 200).await;
    assert!(fresh["as_of"].is_string(), "{fresh}");
    assert_eq!(fresh["lag_records"], 0);
    let list = half.low.run(&["positions", "list"]).await.expect(0).out;
    assert!(list.contains("serves partitions 0-1"), "{list}");
    assert!(!list.contains("partition 2\t"), "{list}");
    let accept = ["positions", "accept", "--partition", "2", "--reason", "x"];
    let ended = half.low.run(&accept).await.expect(1);
    ended.names(&["partition 2 is in another database"]);
}

#[tokio::test]
async fn parked_records_of_a_split_ledger_are_resolved_where_they_are() {
    let half = Half::new("served-parked").await;
    let publisher = half.whole.publisher().await;
    let key = account(1);
    let record = RawRecord {
        key: Some(key.as_bytes()),
        payload: Some(b"?"),
        headers: &[],
        partition: Some(1),
    };
    publish_raw(&publisher, record).await;
    publish(&publisher, [&transfer(11, &key, "b", 1)]).await;
    drained(&half.low, 0).await;
    assert_eq!(half.posted().await, 2);
    // The second can be applied once the first is given up.
    for arguments in [
        &["discard", "--parked-for", "undecodable", "--reason", "x"][..],
        &["replay", "--all"],
    ] {
        let arguments = [&["parked"], arguments, &["--operator", "ann"]].concat();
        half.low.run(&arguments).await.expect(0);
    }
    assert_eq!(half.posted().await, 3);
    half.low.verify().await;
}

#[tokio::test]
async fn what_a_database_has_begun_it_serves_for_ever_and_more_is_begun_at_once() {
    let half = Half::new("served-changes").await;
    let serve =
        async |partitions: &str| half.low.run(&["migrate", "--partitions", partitions]).await;
    let refused = serve("1-3").await.expect(1);
    refused.names(&["has begun partitions 0, which 1-3 leaves out"]);
    let refused = serve("0-4").await.expect(1);
    refused.names(&["4 partitions, and no partition 4"]);
    let again = half.low.run(&["migrate"]).await.expect(0).out;
    assert!(again.contains("it serves partitions 0-1"), "{again}");
    // Without a restart.
    serve("0-2").await.expect(0);
    until("partition 2 is begun", async || {
        (half.ledger.partitions("active") == [0, 1, 2]).then_some(())
    })
    .await;
    serve("all").await.expect(0);
    half.low.drained().await;
    assert_eq!(half.posted().await, 4);
    half.low.verify().await;
    half.ledger.stop().await.expect(0);
}

#[tokio::test]
async fn two_databases_in_one_group_are_told_apart() {
    let split = Split::new("split-group", 4).await;
    let [low, high] = &split.halves;
    let ledger = low.ledger(1).await;
    ledger.becomes_ready().await;
    let publisher = split.whole.publisher().await;
    publish(&publisher, [&transfer(1, &account_in(0, 4, "a"), "b", 1)]).await;
    drained(low, 0).await;
    let mut command = high.ledger_command(&["--lanes", "1"]);
    command.env("MILLRACE_GROUP", low.group());
    let intruder = high.replica(command).await;
    let why = until("the other database's lane stands still", async || {
        let (_, detail) = intruder.readiness()?;
        let why = detail["problems"]
            .as_array()?
            .iter()
            .find_map(Value::as_str)?;
        why.contains("--group").then(|| why.to_owned())
    })
    .await;
    let database = "select database_id::text from millrace.log";
    let database = low.rows(database).await[0]
        .trim_matches(['(', ')'])
        .to_owned();
    assert!(why.contains(&database), "{why}");
    assert!(high.rows("select * from reports.batches").await.is_empty());
    // Once it has left, what the group had given to it is the first one's again.
    intruder.stop().await.expect(0);
    publish(&publisher, [&transfer(2, &account_in(1, 4, "a"), "b", 1)]).await;
    drained(low, 0).await;
    ledger.becomes_ready().await;
    let own = high.ledger(1).await;
    own.becomes_ready().await;
    for replica in [ledger, own] {
        replica.stop().await.expect(0);
    }
}
