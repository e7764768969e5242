//! A row that Postgres itself refuses is found and parked; all others are posted.

use crate::place::Place;
use crate::records::{publish, transfer};

#[tokio::test]
async fn exactly_the_rows_that_postgres_refuses_are_parked() {
    const REFUSED: [u128; 3] = [17, 700, 1_999];
    let place = Place::new("refused", 3).await;
    place
        .execute("alter table millrace.ledger add constraint not_this check (amount <> 666)")
        .await;
    let publisher = place.publisher().await;
    let all: Vec<_> = (0..2_000)
        .map(|n| {
            let amount = if REFUSED.contains(&n) { 666 } else { 5 };
            transfer(n, &format!("account-{n}"), "external:out", amount)
        })
        .collect();
    publish(&publisher, &all).await;
    // Behind one of the culprits, in the same batch as it and in a later one.
    publish(
        &publisher,
        &[transfer(5_000, "account-17", "external:out", 5)],
    )
    .await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    publish(
        &publisher,
        &[transfer(5_001, "account-17", "external:out", 5)],
    )
    .await;
    place.drained().await;

    let parked: Vec<(Vec<u8>, String)> = sqlx::query_as(
        "select key, name from millrace.parked join millrace.reasons on kind = 'parked' and code = reason
         order by recorded_at, key, seq",
    )
    .fetch_all(&mut place.connect().await)
    .await
    .unwrap();
    let mut found: Vec<_> = parked
        .iter()
        .map(|(key, reason)| (std::str::from_utf8(key).unwrap(), reason.as_str()))
        .collect();
    found.sort_unstable();
    let wanted = [
        ("account-17", "behind"),
        ("account-17", "behind"),
        ("account-17", "database_refused"),
        ("account-1999", "database_refused"),
        ("account-700", "database_refused"),
    ];
    assert_eq!(found, wanted);
    let posted = "select count(*) from millrace.ledger where verdict = 0";
    assert_eq!(place.number(posted).await, 1_997);
    ledger.becomes_ready().await;
    place.verify().await;
    ledger.stop().await.expect(0);
}
