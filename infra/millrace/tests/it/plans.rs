//! A lane reads by index from its first batch on, whatever the planner knew when the tables were empty.

use crate::place::Place;
use crate::process::until;
use crate::records::{publish, transfer};

/// What a lane looks up by key and what grows: ids and balances.
const SCANS: &str = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_user_tables
     where schemaname = 'millrace' and relname in ('ledger', 'balances')";

/// Statistics come some time after what they count.
const LOOK_UPS: &str = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_tables
     where schemaname = 'millrace' and relname = 'ledger'";

#[tokio::test]
async fn a_new_database_is_read_by_index_too() {
    let place = Place::new("plans", 1).await;
    let _ledger = place.ledger(1).await;
    let publisher = place.publisher().await;
    publish(&publisher, &[transfer(1, "a", "b", 1)]).await;
    place.drained().await;
    // Now the planner knows that a scan of all of it is the cheapest, and keeps that after five executions.
    place
        .execute("analyze millrace.ledger, millrace.balances")
        .await;
    let mut look_ups = counted(&place, 0).await;
    let scans = place.number(SCANS).await;
    for number in 2..=8 {
        publish(&publisher, &[transfer(number, "a", "b", 1)]).await;
        place.drained().await;
        look_ups = counted(&place, look_ups).await;
    }
    assert_eq!(place.number(SCANS).await, scans);
}

/// How often the ledger was looked into, once that is more than `before`.
async fn counted(place: &Place, before: i64) -> i64 {
    until("look-ups are counted", async || {
        let look_ups = place.number(LOOK_UPS).await;
        (look_ups > before).then_some(look_ups)
    })
    .await
}
