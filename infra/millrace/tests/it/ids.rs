//! An id has one verdict, for ever.

use millrace_schemas::Transaction;

use crate::place::Place;
use crate::process::until;
use crate::records::{account_in, avro, publish, transfer};

/// Posted, duplicate, rejected, refused: over all batches.
async fn counts(place: &Place) -> (i64, i64, i64, i64) {
    sqlx::query_as(
        "select sum(posted)::bigint, sum(duplicate)::bigint, sum(rejected)::bigint, sum(refused)::bigint
         from millrace.batches",
    )
    .fetch_one(&mut place.connect().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn the_same_transaction_is_posted_once_in_one_batch_or_many() {
    let place = Place::new("duplicate", 2).await;
    let publisher = place.publisher().await;
    let first = transfer(1, "a", "b", 10);
    let second = transfer(2, "a", "b", 20);
    publish(&publisher, [&first, &first, &second, &first]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    assert_eq!(counts(&place).await, (2, 2, 0, 0));
    publish(&publisher, [&second, &first]).await;
    place.drained().await;
    assert_eq!(counts(&place).await, (2, 4, 0, 0));
    ledger.stop().await.expect(0);
    let ledger = place.ledger(2).await;
    publish(&publisher, [&second]).await;
    place.drained().await;
    assert_eq!(counts(&place).await, (2, 5, 0, 0));
    assert_eq!(
        place.number("select count(*) from millrace.ledger").await,
        2
    );
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused_with_its_bytes() {
    let place = Place::new("conflict", 2).await;
    let publisher = place.publisher().await;
    let posted = transfer(1, &account_in(0, 2, "a"), "external:out", 10);
    let changed = |change: fn(&mut Transaction<'static>)| {
        let mut other = posted.clone();
        change(&mut other);
        other
    };
    // The last one has another key, in the other partition.
    let mut elsewhere = transfer(1, &account_in(1, 2, "a"), "external:out", 10);
    elsewhere.reference = "elsewhere".into();
    let conflicts = [
        transfer(1, posted.debit_account.as_str(), "external:out", 11),
        changed(|t| t.reference = "other".into()),
        changed(|t| t.occurred_at += 1),
        changed(|t| t.kind = "other".into()),
        elsewhere,
    ];
    publish(&publisher, [&posted]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    publish(&publisher, &conflicts).await;
    publish(&publisher, [&posted]).await;
    place.drained().await;

    assert_eq!(counts(&place).await, (1, 1, 0, 5));
    let refused: Vec<(Vec<u8>, String, String)> = sqlx::query_as(
        "select value, name, id::text from millrace.refused
         join millrace.reasons on kind = 'verdict' and code = reason order by partition, seq",
    )
    .fetch_all(&mut place.connect().await)
    .await
    .unwrap();
    let wanted: Vec<_> = conflicts
        .iter()
        .map(|t| (avro(t), "id_conflict".to_owned(), t.id.to_string()))
        .collect();
    assert_eq!(refused, wanted);
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn a_rejected_transaction_stays_rejected_when_it_is_sent_again() {
    let place = Place::new("rejected", 2).await;
    place
        .run(&["accounts", "default", "--overdraft-limit", "0"])
        .await
        .expect(0);
    let publisher = place.publisher().await;
    let ledger = place.ledger(1).await;
    let debit = transfer(1, "a", "external:out", 10);
    publish(&publisher, [&debit]).await;
    place.drained().await;
    assert_eq!(counts(&place).await, (0, 0, 1, 0));
    // Now the money is there: the answer to the old id does not change, a new id is posted.
    let again = transfer(3, "a", "external:out", 10);
    publish(
        &publisher,
        [&transfer(2, "external:in", "a", 10), &debit, &again, &debit],
    )
    .await;
    place.drained().await;
    assert_eq!(counts(&place).await, (2, 2, 1, 0));
    let verdicts = place
        .rows("select id::text, verdict from millrace.ledger order by id")
        .await;
    let verdict = |t: &Transaction<'_>, code: i16| format!("({},{code})", t.id);
    let wanted = [
        verdict(&debit, 17),
        verdict(&transfer(2, "x", "y", 1), 0),
        verdict(&again, 0),
    ];
    assert_eq!(verdicts, wanted);
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn ids_raced_between_partitions_of_two_replicas_are_posted_once_each() {
    const IDS_PER_ROUND: u128 = 300;
    let place = Place::new("race", 2).await;
    let publisher = place.publisher().await;
    let replicas = [place.ledger(1).await, place.ledger(1).await];
    until("each replica owns a partition", async || {
        let owns_one = replicas.iter().all(|r| r.partitions("active").len() == 1);
        owns_one.then_some(())
    })
    .await;
    let accounts = [0, 1].map(|partition| account_in(partition, 2, "race"));
    let mut ids: u128 = 0;
    // Until both have had the same id in hand at the same time, and at least five rounds.
    let retried = || -> f64 {
        let name = "millrace_ledger_retried_batches_total";
        replicas.iter().map(|replica| replica.metric(name)).sum()
    };
    until("two replicas meet at an id", async || {
        let round: Vec<_> = (ids..ids + IDS_PER_ROUND)
            .flat_map(|n| {
                accounts
                    .each_ref()
                    .map(|a| transfer(n, a, "external:out", 7))
            })
            .collect();
        publish(&publisher, &round).await;
        ids += IDS_PER_ROUND;
        (ids >= 5 * IDS_PER_ROUND && retried() > 0.0).then_some(())
    })
    .await;
    place.drained().await;

    let ids = i64::try_from(ids).unwrap();
    assert_eq!(counts(&place).await, (ids, 0, 0, ids));
    let refused = place
        .rows("select distinct name from millrace.refused join millrace.reasons on kind = 'verdict' and code = reason")
        .await;
    assert_eq!(refused, ["(id_conflict)"]);
    let moved = "select sum(debits)::bigint from millrace.balances";
    assert_eq!(place.number(moved).await, 7 * ids);
    // Each id is once in the ledger and once refused, in the other partition.
    let apart = "select count(*) from millrace.ledger l join millrace.refused r using (id)
                 where l.partition <> r.partition";
    assert_eq!(place.number(apart).await, ids);
    place.verify().await;
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}
