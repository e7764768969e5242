//! A lane remembers where the slices of balances lie: it looks up what it does not know, and little twice.

use sqlx::Executor as _;

use crate::place::Place;
use crate::process::until;
use crate::records::{publish, transfer};

/// How often slices were looked up by key.
const LOOK_UPS: &str = "select idx_scan from pg_stat_user_tables
     where schemaname = 'millrace' and relname = 'balances'";

/// Each pair of accounts has two slices.
const PAIRS: u128 = 4_000;

/// Publishes some transactions of each pair while the partition is locked, so that they come in a few large batches,
/// perhaps beside small ones whose slices are always looked up. Gives how many look-ups there are after it, once they
/// are counted.
async fn look_ups_after(place: &Place, round: u128) -> i64 {
    const COUNT: u128 = 3 * PAIRS;
    let pair = |number| {
        let [debit, credit] = ["a", "b"].map(|side| format!("{side}-{}", number % PAIRS));
        transfer(number, &debit, &credit, 1)
    };
    let batch: Vec<_> = (round * COUNT..(round + 1) * COUNT).map(pair).collect();
    let mut holder = place.connect().await;
    let lock = "begin; select pg_advisory_xact_lock(1296649292, 0)";
    holder.execute(lock).await.unwrap();
    publish(&place.publisher().await, &batch).await;
    holder.execute("commit").await.unwrap();
    place.drained().await;
    // Statistics come some time after what they count, and rows of the ledger with the look-ups before them.
    until("what was written is counted", async || {
        let rows = "select n_tup_ins from pg_stat_user_tables
             where schemaname = 'millrace' and relname = 'ledger'";
        let expected = i64::try_from((round + 1) * COUNT).unwrap();
        (place.number(rows).await >= expected).then_some(())
    })
    .await;
    place.number(LOOK_UPS).await
}

#[tokio::test]
async fn places_are_looked_up_once_until_somebody_moves_them() {
    let place = Place::new("places", 1).await;
    let ledger = place.ledger(1).await;
    ledger.becomes_ready().await;
    let slices = i64::try_from(2 * PAIRS).unwrap();
    let made = look_ups_after(&place, 0).await;
    assert!(made >= slices, "{made}");
    // Whoever makes a slice does not know where it lies: it is looked up once more.
    let known = look_ups_after(&place, 1).await;
    assert!(known > made, "{known} {made}");
    let remembered = look_ups_after(&place, 2).await;
    assert!(remembered - known < slices / 2, "{remembered} {known}");
    // Rows lie elsewhere after this: the batch is tried again, and looks all up.
    place.execute("vacuum full millrace.balances").await;
    let moved = look_ups_after(&place, 3).await;
    assert!(moved - remembered >= slices, "{moved} {remembered}");
    place.verify().await;
    ledger.stop().await.expect(0);
}
