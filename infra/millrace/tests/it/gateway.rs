//! Transactions come in over HTTP and are in the ledger: receipts, retries, outages, the end.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::http::{Answer, Http, JSON, NDJSON, Service, TRANSACTIONS, only_answer, send_chunk};
use crate::log;
use crate::oracle::assert_all_posted_in_order;
use crate::place::Place;
use crate::process::{Replica, until};
use crate::records::{id, json as item, lines, transfer};
use crate::servers::OwnServers;

/// Everything behind a request.
struct Chain {
    place: Place,
    ledger: Replica,
    gateway: Service,
    query: Service,
}

impl Chain {
    async fn new(name: &str) -> Self {
        Self::at(Place::new(name, 4).await).await
    }

    async fn at(place: Place) -> Self {
        let ledger = place.ledger(1).await;
        let (gateway, query) = (place.service("gateway").await, place.service("query").await);
        ledger.becomes_ready().await;
        Self {
            place,
            ledger,
            gateway,
            query,
        }
    }

    /// What the query API says of a receipt's transaction, once that is applied.
    async fn transaction(&self, receipt: &Value) -> Value {
        let (partition, offset) = (&receipt["partition"], &receipt["offset"]);
        let id = receipt["id"].as_str().unwrap();
        let path = format!("{TRANSACTIONS}/{id}?at_least={partition}:{offset}&wait_ms=10000");
        let answer = self.query.http.get(&path).await.expect(200);
        for header in ["millrace-as-of", "millrace-staleness-ms"] {
            assert_ne!(answer.header(header), "", "{answer:?}");
        }
        answer.json()
    }

    /// Every receipt's transaction is posted, at the receipt's place.
    async fn assert_posted<'a>(&self, receipts: impl IntoIterator<Item = &'a Value>) {
        for receipt in receipts {
            assert_eq!(receipt["status"], "accepted", "{receipt}");
            let found = self.transaction(receipt).await;
            assert_eq!(found["verdict"], "posted", "{found}");
            for member in ["id", "partition", "offset"] {
                assert_eq!(found[member], receipt[member], "{found}");
            }
        }
    }

    /// All services end well, and none has anything to complain of.
    async fn end(self) -> Place {
        for replica in [self.gateway.replica, self.query.replica, self.ledger] {
            let ended = replica.stop().await.expect(0);
            assert!(!ended.err.contains("ERROR"), "{ended:?}");
        }
        self.place
    }
}

fn transaction(number: u128) -> Value {
    item(&transfer(number, &format!("a-{number}"), "b", 100))
}

/// Of a batch, in order.
fn results(answer: &Answer) -> Vec<Value> {
    let results = answer.json()["results"].as_array().unwrap().clone();
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], index, "{result}");
    }
    results
}

#[tokio::test]
async fn every_form_is_in_the_ledger_where_its_receipt_says() {
    let chain = Chain::new("forms").await;
    let http = &chain.gateway.http;
    let one = http.post(JSON, transaction(0).to_string()).await;
    let one = one.expect(202).json();
    assert_eq!(one["id"], id(0).to_string());
    chain.assert_posted([&one]).await;

    let items: Vec<_> = (1..8).map(transaction).collect();
    for (content_type, body) in [(JSON, json!(items).to_string()), (NDJSON, lines(&items))] {
        let answer = http.post(content_type, body).await.expect(202);
        let (accepted, rejected) = (&answer.json()["accepted"], &answer.json()["rejected"]);
        assert_eq!((accepted, rejected), (&7.into(), &0.into()));
        let receipts = results(&answer);
        for (item, receipt) in items.iter().zip(&receipts) {
            assert_eq!(receipt["id"], item["id"]);
        }
        if content_type == JSON {
            chain.assert_posted(&receipts).await;
        } else {
            // The second time they are duplicates: applied, and still posted where they were first.
            for receipt in &receipts {
                let found = chain.transaction(receipt).await;
                assert_eq!(found["verdict"], "posted", "{found}");
                assert_ne!(found["offset"], receipt["offset"], "{found}");
            }
        }
    }
    let account = chain.query.http.get("/v1/accounts/b").await.expect(200);
    let balance = &account.json()["balances"][0];
    assert_eq!(
        (&balance["balance"], &balance["transactions"]),
        (&800.into(), &8.into())
    );
    let place = chain.end().await;
    place.verify().await;
}

#[tokio::test]
async fn good_items_of_a_mixed_batch_are_posted_and_bad_ones_named() {
    let chain = Chain::new("mixed").await;
    let with = |number, field: &str, value: Value| {
        let mut item = transaction(number);
        item[field] = value;
        item
    };
    for (content_type, from) in [(JSON, 0), (NDJSON, 10)] {
        let items = [
            transaction(from),
            with(from + 1, "amount", 0.into()),
            transaction(from + 2),
            with(from + 3, "currency", "EUX".into()),
            with(from + 4, "colour", "red".into()),
            json!([]),
            transaction(from + 6),
        ];
        let body = match content_type {
            JSON => json!(items).to_string(),
            _ => lines(&items),
        };
        let answer = chain
            .gateway
            .http
            .post(content_type, body)
            .await
            .expect(207);
        let results = results(&answer);
        let named: Vec<_> = results
            .iter()
            .map(|result| {
                [&result["code"], &result["field"]].map(|text| text.as_str().unwrap_or(""))
            })
            .collect();
        let wanted = [
            ["", ""],
            ["invalid_amount", "amount"],
            ["", ""],
            ["invalid_currency", "currency"],
            ["unknown_field", "colour"],
            ["not_an_object", ""],
            ["", ""],
        ];
        assert_eq!(named, wanted);
        let good = [0, 2, 6].map(|index: usize| &results[index]);
        chain.assert_posted(good).await;
    }
    chain.place.drained().await;
    assert_eq!(assert_all_posted_in_order(&chain.place).await, 6);
    chain.end().await;
}

#[tokio::test]
async fn a_retry_with_the_same_key_is_posted_once_through_any_replica() {
    let chain = Chain::new("retry").await;
    let other = chain.place.service("gateway").await;
    let mut order = transaction(0);
    order.as_object_mut().unwrap().remove("id");
    let body = order.to_string();
    let post = async |http: &Http, key: &str, body: &str| {
        let answer = http.post_with_key(key, body.to_owned()).await;
        answer.expect(202).json()
    };
    let first = post(&chain.gateway.http, "order-1", &body).await;
    chain.assert_posted([&first]).await;
    for http in [&chain.gateway.http, &other.http] {
        let again = post(http, "order-1", &body).await;
        assert_eq!(again["id"], first["id"]);
        let found = chain.transaction(&again).await;
        assert_eq!(found["offset"], first["offset"], "{found}");
        assert_eq!(
            found["other_records"],
            json!([]),
            "duplicates are only counted"
        );
    }
    let next = post(&other.http, "order-2", &body).await;
    assert_ne!(next["id"], first["id"]);
    chain.assert_posted([&next]).await;

    // Another body under the same key: the ledger tells them apart.
    order["amount"] = 101.into();
    let changed = post(&chain.gateway.http, "order-1", &order.to_string()).await;
    let found = chain.transaction(&changed).await;
    assert_eq!(
        (&found["verdict"], &found["amount"]),
        (&"posted".into(), &100.into())
    );
    assert_eq!(
        found["other_records"][0]["reason"], "id_conflict",
        "{found}"
    );

    let query =
        "select sum(posted)::bigint * 100 + sum(duplicate)::bigint from reports.conservation";
    assert_eq!(
        chain.place.number(query).await,
        202,
        "posted twice, and two duplicates"
    );
    let without_key = chain.gateway.http.post(JSON, body).await.expect(422);
    assert_eq!(
        without_key.problem(),
        ("missing_id".into(), Some("id".into()))
    );
    other.replica.stop().await.expect(0);
    chain.end().await.verify().await;
}

#[tokio::test]
async fn while_kafka_is_away_clients_are_told_and_it_recovers_by_itself() {
    let servers = OwnServers::start("gateway");
    let chain = Chain::at(Place::on(servers.addresses.clone(), "away", 2).await).await;
    let http = &chain.gateway.http;
    http.post(JSON, transaction(0).to_string())
        .await
        .expect(202);
    chain.place.drained().await;

    servers.kafka("stop");
    let items: Vec<_> = (1..4).map(transaction).collect();
    let waited = http.post(NDJSON, lines(&items)).await.expect(503);
    assert_eq!(waited.problem().0, "kafka_unavailable");
    for result in results(&waited) {
        assert_eq!(result["status"], "unacknowledged");
    }
    chain.gateway.replica.becomes_unready().await;
    let refused = http
        .post(JSON, transaction(1).to_string())
        .await
        .expect(503);
    assert_eq!(refused.problem().0, "kafka_unavailable");
    for answer in [waited, refused] {
        let seconds: u32 = answer.header("retry-after").parse().unwrap();
        assert!((1..60).contains(&seconds));
    }
    assert_eq!(chain.gateway.replica.get("/livez").unwrap().0, 200);
    // What is in the database is answered meanwhile.
    chain.query.http.get("/v1/accounts/b").await.expect(200);

    servers.kafka("start");
    let receipts = until("the same request is accepted", async || {
        let answer = http.post(NDJSON, lines(&items)).await;
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
        (answer.status == 202).then(|| results(&answer))
    })
    .await;
    chain.gateway.replica.becomes_ready().await;
    chain.ledger.becomes_ready().await;
    for receipt in &receipts {
        assert_eq!(chain.transaction(receipt).await["verdict"], "posted");
    }
    // Whatever of the tries reached the log, each is posted once.
    let posted = "select count(*) from reports.transactions";
    assert_eq!(chain.place.number(posted).await, 4);
    chain.end().await.verify().await;
}

#[tokio::test]
async fn sigterm_answers_the_requests_in_hand() {
    let place = Place::new("drain", 2).await;
    let gateway = place.service("gateway").await;
    let mut stream = gateway.http.begin_stream().await;
    send_chunk(&mut stream, &lines(&[transaction(0)])).await;
    until("the first line is in the log", async || {
        let ends = log::ends(place.brokers(), place.topic(), place.partitions).await;
        (ends.iter().sum::<i64>() == 1).then_some(())
    })
    .await;
    // Its connection is kept, but not for the end.
    gateway.http.get("/openapi.json").await.expect(200);

    let mut replica = gateway.replica;
    replica.process().signal("TERM");
    until("nobody is let in", async || {
        TcpStream::connect(gateway.http.address).await.err()
    })
    .await;
    assert!(replica.process().is_running(), "a request is in hand");
    send_chunk(&mut stream, &lines(&[transaction(1)])).await;
    send_chunk(&mut stream, "").await;
    let (status, body) = only_answer(stream).await;
    assert_eq!(status, 202, "{body}");
    let ended = replica.ends().await.expect(0);
    assert!(ended.err.contains("stopped"), "{ended:?}");
    let ledger = place.ledger(1).await;
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, 2);
    ledger.stop().await.expect(0);
}
