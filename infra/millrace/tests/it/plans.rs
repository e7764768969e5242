//! A lane reads by index from its first batch on, whatever the planner knew when the tables were empty; and every index
//! of a table that grows is there for a statement.

use sqlx::AssertSqlSafe;

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

/// The indexes of tables that grow.
const GROWING: &str = "select indexrelname::text from pg_stat_user_indexes
     where schemaname = 'millrace' and relname in ('ledger', 'refused', 'parked', 'parked_resolutions', 'batches',
         'balances', 'daily_totals', 'account_days', 'flows')
     order by 1";

/// Each of them, and a statement that is sent and uses it: those of docs/capacity.md.
const SERVED: [(&str, &str); 17] = [
    // Reports and folds of an account, of a day.
    (
        "account_days_pkey",
        "select * from reports.account_days where account = 'a'",
    ),
    (
        "daily_totals_pkey",
        "select * from reports.daily_totals where day = '2026-01-01'",
    ),
    (
        "flows_pkey",
        "select * from reports.flows where debit_account = 'a'",
    ),
    // A lane finds slices; funds and balances of an account.
    (
        "balances_pkey",
        "select * from reports.balances where account = 'a'",
    ),
    // verify goes along a partition's batches; `verify --since` and reports.batches look for a time.
    (
        "batches_pkey",
        "select * from millrace.batches where partition = 0 and batch = 5",
    ),
    (
        "batches_recorded_at",
        "select * from reports.batches where recorded_at > '2026-01-01'",
    ),
    // Duplicates, and GET /v1/transactions/{id}.
    (
        "ledger_id_key",
        "select * from reports.transactions where id = '00000000-0000-0000-0000-000000000001'",
    ),
    // Folds, verify, threads of an account, the newest of a partition.
    (
        "ledger_pkey",
        "select * from millrace.ledger where partition = 0 and seq >= 5 and seq < 9",
    ),
    // Reports of rejections: the newest first, by time.
    (
        "ledger_rejected",
        "select * from reports.rejections where recorded_at > '2026-01-01'",
    ),
    (
        "refused_recorded_at",
        "select * from reports.rejections where recorded_at > '2026-01-01'",
    ),
    (
        "refused_id",
        "select * from reports.rejections where id = '00000000-0000-0000-0000-000000000001'",
    ),
    (
        "refused_pkey",
        "select * from millrace.refused where partition = 0 and seq >= 5 and seq < 9",
    ),
    // What is parked: by its key (later records of it wait), by id, and what became of it.
    (
        "parked_id",
        "select * from reports.parked where id = '00000000-0000-0000-0000-000000000001'",
    ),
    (
        "parked_key",
        "select * from millrace.parked where partition = 0 and key = '\\x61'",
    ),
    (
        "parked_pkey",
        "select * from millrace.parked where partition = 0 and seq >= 5 and seq < 9",
    ),
    (
        "parked_resolutions_partition_parked_seq_key",
        "select * from millrace.parked_resolutions where partition = 0 and parked_seq = 5",
    ),
    (
        "parked_resolutions_pkey",
        "select * from millrace.parked_resolutions where partition = 0 and seq >= 5 and seq < 9",
    ),
];

#[tokio::test]
async fn every_index_of_a_table_that_grows_serves_a_statement() {
    let place = Place::new("indexes", 1).await;
    // Creates the read models.
    let _project = place.start_command(place.project_command(), "project");
    let mut served: Vec<_> = SERVED.iter().map(|(index, _)| *index).collect();
    served.sort_unstable();
    let mut connection = place.connect().await;
    until("the read models are there", async || {
        let models: i64 = sqlx::query_scalar("select count(*) from millrace.read_models")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (models == 3).then_some(())
    })
    .await;
    let found: Vec<String> = sqlx::query_scalar(GROWING)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(found, served);

    sqlx::raw_sql("set enable_seqscan = off")
        .execute(&mut connection)
        .await
        .unwrap();
    for (index, statement) in SERVED {
        let explain = format!("explain (costs off) {statement}");
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let uses = plan.iter().any(|line| line.contains(index));
        assert!(
            uses,
            "{index} is not used by {statement}:\n{}",
            plan.join("\n")
        );
    }
}

/// How often the ledger was looked into, once that is more than `before`.
async fn counted(place: &Place, before: i64) -> i64 {
    until("look-ups are counted", async || {
        let look_ups = place.number(LOOK_UPS).await;
        (look_ups > before).then_some(look_ups)
    })
    .await
}
