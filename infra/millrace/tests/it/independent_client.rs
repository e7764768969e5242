//! Records of a client that shares no code with Millrace: Python, confluent-kafka, fastavro.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::oracle::assert_nothing_is_lost;
use crate::place::Place;
use crate::servers::{python, repository};

/// What `infra/test/independent_producer.py` prints.
#[derive(Debug, Deserialize)]
struct Sent {
    posted: BTreeMap<String, Value>,
    duplicates: i64,
    misrouted: Vec<String>,
    aborted: i64,
}

async fn send(place: &Place, mode: &str) -> Sent {
    let mut command = python();
    command
        .arg(repository().join("infra/test/independent_producer.py"))
        .args([place.brokers(), place.topic()])
        .arg(repository().join("schemas/avro/transaction.avsc"))
        .arg(mode);
    let ended = place.start_command(command, "python").end().await.expect(0);
    serde_json::from_str(&ended.out).unwrap()
}

/// Everything that was posted, with every field.
async fn posted(place: &Place) -> BTreeMap<String, Value> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select id::text, jsonb_build_array(debit_account, credit_account, amount, currency,
             (extract(epoch from occurred_at) * 1000000)::bigint, coalesce(reference, ''), source,
             coalesce(metadata, '{}'))::text
         from reports.transactions",
    )
    .fetch_all(&mut place.connect().await)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(id, fields)| (id, serde_json::from_str(&fields).unwrap()))
        .collect()
}

#[tokio::test]
async fn an_independent_clients_records_are_understood() {
    let place = Place::new("python", 12).await;
    let ledger = place.ledger(2).await;
    let sent = send(&place, "records").await;
    place.drained().await;

    let posted = posted(&place).await;
    for (id, fields) in &sent.posted {
        assert_eq!(posted.get(id), Some(fields), "{id}");
    }
    assert_eq!(posted.len(), sent.posted.len());
    let duplicates = "select sum(duplicate)::bigint from reports.conservation";
    assert_eq!(place.number(duplicates).await, sent.duplicates);
    let mut misrouted = place
        .rows("select id, reason from reports.rejections")
        .await;
    misrouted.sort_unstable();
    let wanted: Vec<_> = sent
        .misrouted
        .iter()
        .map(|id| format!("({id},misrouted)"))
        .collect();
    assert_eq!(misrouted, wanted);
    assert_nothing_is_lost(&place).await;
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn aborted_records_are_skipped_and_counted() {
    let place = Place::new("transactional", 3).await;
    let ledger = place.ledger(1).await;
    let sent = send(&place, "transactions").await;
    assert!(sent.aborted > 0);
    place.drained().await;

    assert_eq!(posted(&place).await, sent.posted);
    let records = "select sum(records)::bigint from reports.conservation";
    assert_eq!(
        place.number(records).await,
        i64::try_from(sent.posted.len()).unwrap()
    );
    // What was aborted, and at least one mark at the end of each transaction that wrote anything.
    let skipped = "select sum(skipped)::bigint from reports.conservation";
    assert!(place.number(skipped).await >= sent.aborted + 6);
    assert_nothing_is_lost(&place).await;
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);

    // The same from the start, with everything there already.
    let counted =
        "select partition, incarnation, start_offset, position, posted, duplicate, rejected,
         parked, discarded, records, skipped, holds from reports.conservation";
    place
        .execute(&format!("create table public.kept as {counted}"))
        .await;
    let again = place.ledger(2).await;
    again.becomes_ready().await;
    let differing = format!("select count(*) from ({counted} except select * from public.kept) d");
    assert_eq!(place.number(&differing).await, 0);
    again.stop().await.expect(0);
}
