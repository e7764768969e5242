//! Records that cannot be understood wait for an operator, with everything that they had.

use std::collections::BTreeMap;

use millrace_publisher::{Publisher, RawRecord};
use millrace_schemas::Transaction;
use sqlx::Row as _;

use crate::oracle::assert_nothing_is_lost;
use crate::place::Place;
use crate::process::until;
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
        "select partition, log_offset, reason, key, bytes as value, headers from reports.parked
         order by partition, log_offset",
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

/// A record that cannot be read, and the reason that it must get.
struct Poison {
    key: &'static str,
    value: Option<Vec<u8>>,
    headers: &'static [(&'static str, &'static [u8])],
    reason: &'static str,
}

fn good(number: u128, key: &str) -> Transaction<'static> {
    transfer(number, key, "external:out", 5)
}

fn poison() -> [Poison; 8] {
    const NONE: &[(&str, &[u8])] = &[];
    const TRACE: &[(&str, &[u8])] = &[("trace", b"\x00\xff"), ("empty", b"")];
    const JSON: &[(&str, &[u8])] = &[("content-type", b"application/json"), ("trace", b"1")];
    let mut unknown = avro(&good(90, "unknown"));
    unknown[2] ^= 1;
    let mut cut = avro(&good(91, "cut"));
    cut.truncate(cut.len() - 4);
    let mut longer = avro(&good(92, "longer"));
    longer.push(0);
    let confluent = b"\x00\x00\x00\x00\x07abc".to_vec();
    let json = b"{\"id\": \"\\u0000".to_vec();
    [
        (
            "bytes",
            Some(b"\xde\xad\xbe\xef".to_vec()),
            TRACE,
            "undecodable",
        ),
        ("empty", Some(Vec::new()), NONE, "undecodable"),
        ("tombstone", None, TRACE, "undecodable"),
        ("unknown", Some(unknown), NONE, "unknown_schema"),
        ("confluent", Some(confluent), NONE, "unknown_schema"),
        ("cut", Some(cut), NONE, "undecodable"),
        ("longer", Some(longer), NONE, "undecodable"),
        ("json", Some(json), JSON, "undecodable"),
    ]
    .map(|(key, value, headers, reason)| Poison {
        key,
        value,
        headers,
        reason,
    })
}

impl Poison {
    async fn publish(&self, publisher: &Publisher) -> Parked {
        let record = RawRecord {
            key: Some(self.key.as_bytes()),
            payload: self.value.as_deref(),
            headers: self.headers,
            partition: None,
        };
        let receipt = publish_raw(publisher, record).await;
        Parked {
            partition: receipt.partition,
            log_offset: receipt.offset,
            reason: self.reason.into(),
            key: Some(self.key.into()),
            value: self.value.clone(),
            headers: header_bytes(self.headers),
        }
    }
}

/// One good record for each poisoned key: they must wait behind it.
async fn publish_behind(publisher: &Publisher, poison: &[Poison], first: u128) -> Vec<Parked> {
    let transactions: Vec<_> = (first..)
        .zip(poison)
        .map(|(number, poison)| good(number, poison.key))
        .collect();
    let receipts = publish(publisher, &transactions).await;
    let parked = transactions.iter().zip(receipts);
    parked
        .map(|(transaction, receipt)| Parked {
            partition: receipt.partition,
            log_offset: receipt.offset,
            reason: "behind".into(),
            key: Some(transaction.debit_account.as_str().into()),
            value: Some(avro(transaction)),
            headers: Vec::new(),
        })
        .collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_whole_and_holds_back_its_own_key_only() {
    let place = Place::new("poison", 2).await;
    let publisher = place.publisher().await;
    let poison = poison();
    let mut wanted = Vec::new();
    for record in &poison {
        wanted.push(record.publish(&publisher).await);
    }
    // In the same batch, and other keys beside them.
    wanted.extend(publish_behind(&publisher, &poison, 0).await);
    let beside: Vec<_> = (100..150).map(|n| good(n, &format!("fine-{n}"))).collect();
    publish(&publisher, &beside).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    // Later, when the keys are held by rows of the database.
    wanted.extend(publish_behind(&publisher, &poison, 20).await);
    publish(&publisher, &[good(150, "fine-100")]).await;
    place.drained().await;

    wanted.sort_by_key(|parked| (parked.partition, parked.log_offset));
    assert_eq!(parked(&place).await, wanted);
    let posted = "select count(*) from reports.transactions";
    assert_eq!(place.number(posted).await, 51);
    let open = "select count(*) from reports.parked where resolution is null";
    assert_eq!(place.number(open).await, 24);
    ledger.becomes_ready().await;
    assert_nothing_is_lost(&place).await;
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_topic_of_garbage_stops_its_partitions_and_never_the_process() {
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
    until("the brake has stopped the partitions", async || {
        (ledger.partitions("stopped") == [0, 1, 2]).then_some(())
    })
    .await;
    let detail = ledger.becomes_unready().await.to_string();
    assert!(
        detail.contains("cannot be understood, more than 50 %"),
        "{detail}"
    );
    let parked = place.number("select count(*) from millrace.parked").await;
    assert!(parked < 600, "{parked} records are parked");
    ledger.stop().await.expect(0);
    // Somebody means it.
    let command = place.ledger_command(&["--lanes", "2", "--park-brake-percent", "100"]);
    let ledger = place.replica(command).await;
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

/// What is replaced in a valid record, by what, and the reason that it must get.
const WRONG: [(&str, &str, &str); 16] = [
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
    (r#""amount":1"#, r#""amount":1.5"#, "invalid_amount"),
    (
        r#""amount":1"#,
        r#""amount":9223372036854775808"#,
        "invalid_amount",
    ),
    (r#""amount":1"#, r#""amount":"1""#, "invalid_amount"),
    ("EUR", "EUX", "invalid_currency"),
    ("01-02T", "02-30T", "invalid_occurred_at"),
    ("2026-01", "1899-01", "invalid_occurred_at"),
    (r#""it""#, r#""""#, "invalid_source"),
    (r#""it""#, r#""a\u0000b""#, "invalid_source"),
];

#[tokio::test]
async fn records_that_are_readable_and_wrong_are_refused_by_reason_and_the_rest_go_on() {
    let place = Place::new("wrong", 2).await;
    let publisher = place.publisher().await;
    let valid = r#"{"id":"ID","kind":"k","debit_account":"a","credit_account":"b","amount":1,
        "currency":"EUR","occurred_at":"2026-01-02T03:04:05Z","source":"it"}"#;
    let one_id =
        |number: u32| valid.replace("ID", &format!("00000000-0000-4000-8000-{number:012}"));
    for (from, to, _) in WRONG {
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
    let wanted: Vec<_> = WRONG
        .iter()
        .map(|(.., reason)| format!("({reason})"))
        .collect();
    assert_eq!(reasons, wanted);
    // What is no whole number is told in the detail and not shown as another amount.
    let unread = place
        .rows(
            "select detail, amount, debit_account from reports.rejections
               where reason = 'invalid_amount' order by log_offset offset 3 limit 1",
        )
        .await;
    assert_eq!(
        unread,
        [r#"("amount ""1.5"" is not a whole number of minor units from 1 to 10^15",,a)"#]
    );
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        1
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

async fn publish_json(publisher: &Publisher, json: &str) {
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
