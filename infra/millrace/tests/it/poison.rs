//! Records that cannot be understood wait for an operator, with everything that they had.

use std::collections::BTreeMap;

use millrace_publisher::RawRecord;
use sqlx::Row as _;

use crate::place::Place;
use crate::records::{account_in, avro, home, publish, publish_raw, transfer};

/// A parked record as the table has it.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
struct Parked {
    partition: i32,
    log_offset: i64,
    reason: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

async fn parked(place: &Place) -> Vec<Parked> {
    sqlx::query_as(
        "select partition, log_offset, name as reason, key, value, headers
         from millrace.parked join millrace.reasons on kind = 'parked' and code = reason
         order by partition, seq",
    )
    .fetch_all(&mut place.connect().await)
    .await
    .unwrap()
}

/// Headers in the form that the migration describes.
fn header_bytes(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            bytes.extend(i32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_whole_and_holds_back_its_own_key_only() {
    let place = Place::new("poison", 2).await;
    let publisher = place.publisher().await;
    let good = |number, key: &str| transfer(number, key, "external:out", 5);
    let mut unknown_schema = avro(&good(90, "unknown"));
    unknown_schema[2] ^= 1;
    let mut cut = avro(&good(91, "cut"));
    cut.truncate(cut.len() - 4);
    let mut longer = avro(&good(92, "longer"));
    longer.push(0);
    let json: (&str, &[u8]) = ("content-type", b"application/json");
    let trace: (&str, &[u8]) = ("trace", b"\x00\xff");
    type Poison<'a> = (
        &'a str,
        Option<&'a [u8]>,
        &'a [(&'a str, &'a [u8])],
        &'a str,
    );
    let poison: [Poison<'_>; 7] = [
        ("bytes", Some(b"\xde\xad\xbe\xef"), &[trace], "undecodable"),
        ("empty", Some(b""), &[], "undecodable"),
        ("tombstone", None, &[trace], "undecodable"),
        ("unknown", Some(&unknown_schema), &[], "unknown_schema"),
        (
            "confluent",
            Some(b"\x00\x00\x00\x00\x07abc"),
            &[],
            "unknown_schema",
        ),
        ("cut", Some(&cut), &[], "undecodable"),
        (
            "json",
            Some(b"{\"id\": \"\\u0000"),
            &[json, trace],
            "undecodable",
        ),
    ];
    let mut wanted = Vec::new();
    for (key, payload, headers, reason) in poison {
        let key = key.as_bytes();
        let record = RawRecord {
            key: Some(key),
            payload,
            headers,
            partition: None,
        };
        let receipt = publish_raw(&publisher, record).await;
        wanted.push(Parked {
            partition: receipt.partition,
            log_offset: receipt.offset,
            reason: reason.into(),
            key: Some(key.to_vec()),
            value: payload.map(<[u8]>::to_vec),
            headers: header_bytes(headers),
        });
    }
    // Before the ledger starts one good record is behind each of them, and other keys are beside them.
    let behind: Vec<_> = (0..)
        .zip(poison)
        .map(|(n, (key, ..))| good(n, key))
        .collect();
    let beside: Vec<_> = (100..150).map(|n| good(n, &format!("fine-{n}"))).collect();
    let behind_at = publish(&publisher, &behind).await;
    publish(&publisher, &beside).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    // And one more comes later, when the key is held by rows of the database.
    let later: Vec<_> = (20..)
        .zip(poison)
        .map(|(n, (key, ..))| good(n, key))
        .collect();
    let later_at = publish(&publisher, &later).await;
    publish(&publisher, &[good(150, "fine-100")]).await;
    place.drained().await;

    let held = behind
        .iter()
        .chain(&later)
        .zip(behind_at.iter().chain(&later_at));
    wanted.extend(held.map(|(transaction, receipt)| Parked {
        partition: receipt.partition,
        log_offset: receipt.offset,
        reason: "behind".into(),
        key: Some(transaction.debit_account.as_str().into()),
        value: Some(avro(transaction)),
        headers: Vec::new(),
    }));
    wanted.sort_by_key(|parked| (parked.partition, parked.log_offset));
    assert_eq!(parked(&place).await, wanted);
    let posted = "select count(*) from millrace.ledger where verdict = 0";
    assert_eq!(place.number(posted).await, 51);
    let open = "select sum(parked_open)::bigint from millrace.positions";
    assert_eq!(place.number(open).await, 21);
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_topic_of_garbage_does_not_stop_the_process() {
    const RECORDS: u32 = 6_000;
    let place = Place::new("garbage", 3).await;
    let publisher = place.publisher().await;
    let ledger = place.ledger(2).await;
    for number in 0..RECORDS {
        let bytes: Vec<u8> = (0..number % 300)
            .map(|i| (i * number % 251) as u8)
            .collect();
        let key = format!("key-{}", number % 700);
        let headers: [(&str, &[u8]); 2] = [("content-type", b"application/json"), ("x", &bytes)];
        let record = RawRecord {
            key: (number % 3 > 0).then_some(key.as_bytes()),
            payload: (number % 50 > 0).then_some(&bytes),
            headers: &headers[..number as usize % 3],
            partition: None,
        };
        drop(publisher.publish_raw(record).await.unwrap());
    }
    let totals = publisher.drain().await;
    assert_eq!(totals.acknowledged, u64::from(RECORDS), "{totals:?}");
    let good: Vec<_> = (0..100)
        .map(|n| transfer(n, &format!("fine-{n}"), "other", 1))
        .collect();
    publish(&publisher, &good).await;
    place.drained().await;

    let mut counts = BTreeMap::new();
    let query = "select sum(posted)::bigint as posted, sum(parked)::bigint as parked,
                     sum(duplicate + rejected + refused + skipped)::bigint as other
                 from millrace.batches";
    let row = sqlx::query(query)
        .fetch_one(&mut place.connect().await)
        .await
        .unwrap();
    for column in ["posted", "parked", "other"] {
        counts.insert(column, row.get::<i64, _>(column));
    }
    let wanted = [
        ("posted", 100),
        ("parked", i64::from(RECORDS)),
        ("other", 0),
    ];
    assert_eq!(counts, BTreeMap::from(wanted));
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn records_that_are_readable_and_wrong_are_refused_by_reason_and_the_rest_go_on() {
    let place = Place::new("wrong", 2).await;
    let publisher = place.publisher().await;
    let valid = r#"{"id":"ID","kind":"k","debit_account":"a","credit_account":"b","amount":1,
        "currency":"EUR","occurred_at":"2026-01-02T03:04:05Z","source":"it"}"#;
    let one_id =
        |number: u32| valid.replace("ID", &format!("00000000-0000-4000-8000-{number:012}"));
    let cases = [
        (
            r#""00000000-0000-4000-8000-000000000000""#,
            r#""no""#,
            "invalid_id",
        ),
        (r#""k""#, r#""""#, "invalid_kind"),
        (r#""a""#, r#""-a""#, "invalid_debit_account"),
        (r#""b""#, r#""B""#, "invalid_credit_account"),
        (r#""b""#, r#""a""#, "same_account"),
        (r#""amount":1"#, r#""amount":0"#, "invalid_amount"),
        (r#""amount":1"#, r#""amount":-5"#, "invalid_amount"),
        (
            r#""amount":1"#,
            r#""amount":1000000000000001"#,
            "invalid_amount",
        ),
        ("EUR", "EUX", "invalid_currency"),
        ("2026-01", "1899-01", "invalid_occurred_at"),
        (r#""it""#, r#""""#, "invalid_source"),
        (r#""it""#, r#""a\u0000b""#, "invalid_source"),
    ];
    for (from, to, _) in cases {
        let bad = one_id(0).replace(from, to);
        assert_ne!(bad, one_id(0), "{from}");
        publish_json(&publisher, &bad).await;
    }
    publish_json(&publisher, &one_id(1)).await;
    let ledger = place.ledger(1).await;
    place.drained().await;

    let reasons = place
        .rows(
            "select name from millrace.refused join millrace.reasons on kind = 'verdict' and code = reason
             order by log_offset",
        )
        .await;
    let wanted: Vec<_> = cases
        .iter()
        .map(|(.., reason)| format!("({reason})"))
        .collect();
    assert_eq!(reasons, wanted);
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        1
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

async fn publish_json(publisher: &millrace_publisher::Publisher, json: &str) {
    let record = RawRecord {
        key: Some(b"a"),
        payload: Some(json.as_bytes()),
        headers: &[("content-type", b"application/json; charset=utf-8")],
        partition: None,
    };
    publish_raw(publisher, record).await;
}

#[tokio::test]
async fn a_key_is_held_back_in_its_own_partition_only() {
    let place = Place::new("held", 2).await;
    let publisher = place.publisher().await;
    let account = account_in(0, 2, "a");
    let transaction = transfer(1, &account, "external:out", 1);
    assert_eq!(home(&transaction, 2), 0);
    // The same raw key in the other partition is another key's business.
    let record = RawRecord {
        key: Some(account.as_bytes()),
        payload: Some(b"garbage"),
        headers: &[],
        partition: Some(1),
    };
    publish_raw(&publisher, record).await;
    publish(&publisher, [&transaction]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        1
    );
    assert_eq!(
        place.number("select count(*) from millrace.parked").await,
        1
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}
