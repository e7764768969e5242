//! What each role may do.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::ledger::fill;
use crate::scratch::in_scratch;

const DENIED: &str = "42501";
const APPEND_ONLY: &str = "23001";

/// Runs a statement as a role, in a transaction that is rolled back: the SQLSTATE if it fails.
async fn as_role(connection: &mut PgConnection, role: &str, statement: &str) -> Option<String> {
    let mut db_tx = connection.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("set local role {role}")))
        .execute(&mut *db_tx)
        .await
        .unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut *db_tx)
        .await;
    db_tx.rollback().await.unwrap();
    let failure = outcome.err()?;
    let code = failure
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    Some(code.expect("the database says why").into_owned())
}

async fn relations(connection: &mut PgConnection, schema: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select relname::text from pg_class
         where relnamespace = $1::regnamespace and relkind in ('r', 'v') order by 1",
    )
    .bind(schema)
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn the_reader_reads_every_report_and_nothing_else() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 50).await;
        let views = relations(&mut connection, "reports").await;
        assert!(views.len() >= 10, "{views:?}");
        for view in views {
            let select = format!("select * from reports.{view}");
            assert_eq!(
                as_role(&mut connection, "millrace_reader", &select).await,
                None,
                "{view}"
            );
            let delete = format!("delete from reports.{view}");
            let denied = as_role(&mut connection, "millrace_reader", &delete).await;
            // A view that adds up cannot be written by anybody.
            assert!(denied.is_some(), "{view}");
        }
        let tables = relations(&mut connection, "millrace").await;
        assert!(tables.len() >= 15, "{tables:?}");
        for table in tables {
            let select = format!("select * from millrace.{table}");
            let denied = as_role(&mut connection, "millrace_reader", &select).await;
            assert_eq!(denied.as_deref(), Some(DENIED), "{table}");
        }
        for statement in [
            "create table reports.mine (n int)",
            "create view reports.mine as select 1",
        ] {
            let denied = as_role(&mut connection, "millrace_reader", statement).await;
            assert_eq!(denied.as_deref(), Some(DENIED), "{statement}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_writer_adds_and_never_changes_what_is_stored() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 50).await;
        for table in [
            "ledger",
            "refused",
            "parked",
            "parked_resolutions",
            "batches",
        ] {
            for statement in [
                format!("update millrace.{table} set partition = 9"),
                format!("delete from millrace.{table}"),
                format!("truncate millrace.{table}"),
            ] {
                let denied = as_role(&mut connection, "millrace_writer", &statement).await;
                assert_eq!(denied.as_deref(), Some(DENIED), "{statement}");
                // Owner and superuser meet the trigger.
                let statement = statement
                    .replace(
                        "truncate millrace.parked",
                        "truncate millrace.parked_resolutions, millrace.parked",
                    )
                    .replace(
                        "millrace.parked_resolutions, millrace.parked_resolutions",
                        "millrace.parked_resolutions",
                    );
                for role in ["millrace_migrator", "none"] {
                    let refused = as_role(&mut connection, role, &statement).await;
                    assert_eq!(refused.as_deref(), Some(APPEND_ONLY), "{role}: {statement}");
                }
            }
        }
        for table in ["daily_totals", "account_days", "flows"] {
            let delete = format!("delete from millrace.{table}");
            let denied = as_role(&mut connection, "millrace_writer", &delete).await;
            assert_eq!(denied.as_deref(), Some(DENIED), "{delete}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_writer_is_enough_to_fold() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 2, 0, 50).await;
        sqlx::raw_sql("set role millrace_writer")
            .execute(&mut connection)
            .await
            .unwrap();
        for model in millrace_readmodels::all() {
            let ends = [(0, 50), (1, 50)];
            millrace_readmodels::fold_inline(&mut connection, model, &ends, 100)
                .await
                .unwrap();
            millrace_readmodels::record_failure(&mut connection, model, 0, "none")
                .await
                .unwrap();
        }
        assert_eq!(
            millrace_readmodels::verify(&mut connection)
                .await
                .unwrap()
                .differences,
            []
        );
    })
    .await;
}

#[tokio::test]
async fn everything_belongs_to_the_migrator() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        let others: Vec<String> = sqlx::query_scalar(
            "select relname::text from pg_class
             where relnamespace in ('millrace'::regnamespace, 'reports'::regnamespace)
                 and relowner <> 'millrace_migrator'::regrole",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(others, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn installing_again_and_twice_at_once_changes_nothing() {
    in_scratch(|scratch| async move {
        let (mut one, mut two) = (scratch.connect().await, scratch.connect().await);
        fill(&mut one, 1, 0, 50).await;
        let account_days = &millrace_readmodels::all()[1];
        millrace_readmodels::fold_inline(&mut one, account_days, &[(0, 50)], 100)
            .await
            .unwrap();
        let (a, b) = tokio::join!(
            millrace_readmodels::install(&mut one),
            millrace_readmodels::install(&mut two)
        );
        a.unwrap();
        b.unwrap();
        assert_eq!(
            millrace_readmodels::verify(&mut one)
                .await
                .unwrap()
                .differences,
            []
        );
        let modes: Vec<(String, String)> =
            sqlx::query_as("select model, mode from read_models order by model")
                .fetch_all(&mut one)
                .await
                .unwrap();
        let modes: Vec<_> = modes
            .iter()
            .map(|(model, mode)| (&**model, &**mode))
            .collect();
        let expected = [
            ("account_days", "background"),
            ("daily_totals", "inline"),
            ("flows", "background"),
        ];
        assert_eq!(modes, expected);
    })
    .await;
}
