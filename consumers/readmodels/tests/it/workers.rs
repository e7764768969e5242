//! The background workers.

use std::num::NonZeroUsize;
use std::time::Duration;

use millrace_readmodels::{Database, Options, Status, run, verify};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ledger::{expected, fill, reported};
use crate::scratch::in_scratch;

/// Far beyond what any of these tests takes on a slow machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// Workers that run until [`Workers::stop`].
struct Workers {
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    task: JoinSet<()>,
}

impl Workers {
    fn start(database: &PgConnectOptions, workers: usize) -> Self {
        let (sender, status) = watch::channel(Status::default());
        let shutdown = CancellationToken::new();
        let options = Options {
            database: database.clone(),
            workers: NonZeroUsize::new(workers).unwrap(),
        };
        let mut task = JoinSet::new();
        task.spawn(run(options, sender, shutdown.clone()));
        Self {
            status,
            shutdown,
            task,
        }
    }

    async fn until(&mut self, reached: impl FnMut(&Status) -> bool) -> Status {
        let waiting = tokio::time::timeout(DEADLINE, self.status.wait_for(reached));
        waiting.await.expect("the deadline").unwrap().clone()
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task.join_next());
        ended.await.expect("the deadline").unwrap().unwrap();
    }
}

/// Waits until every model has folded everything, by the database's own word.
async fn until_folded(connection: &mut PgConnection) {
    let folded = async {
        loop {
            let lag: Option<i64> = sqlx::query_scalar(
                "select sum(lag_seqs)::bigint from reports.read_model_freshness",
            )
            .fetch_one(&mut *connection)
            .await
            .unwrap();
            if lag == Some(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, folded)
        .await
        .expect("the deadline");
}

fn has_caught_up(status: &Status, model: &str) -> bool {
    let found = status.models.iter().find(|m| m.model == model);
    found.is_some_and(|m| m.lag_seqs == 0 && m.failed.is_empty())
}

#[tokio::test]
async fn workers_of_two_processes_count_everything_once() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 5, 0, 3_000).await;
        let processes = [1, 2].map(|_| Workers::start(&scratch.options, 2));
        for end in [3_001, 8_000, 12_000, 12_345] {
            let from: i64 = sqlx::query_scalar("select min(next_seq) from positions")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            fill(&mut connection, 5, from, end).await;
        }
        // A partition that is new to a running system.
        fill(&mut connection, 6, 12_345, 12_400).await;
        until_folded(&mut connection).await;
        for workers in processes {
            workers.stop().await;
        }
        let expected = expected(&mut connection).await;
        assert_eq!(reported(&mut connection).await, expected);
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn a_model_that_fails_keeps_nobody_and_recovers() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 3, 0, 1_000).await;
        sqlx::raw_sql("alter table flows rename column amount to lost")
            .execute(&mut connection)
            .await
            .unwrap();
        let mut workers = Workers::start(&scratch.options, 1);
        let status = workers
            .until(|status| {
                let failed = status
                    .models
                    .iter()
                    .any(|m| m.model == "flows" && m.failed.len() == 3);
                failed
                    && has_caught_up(status, "account_days")
                    && has_caught_up(status, "daily_totals")
            })
            .await;
        assert!(status.is_ready());
        let flows = status.models.iter().find(|m| m.model == "flows").unwrap();
        assert_eq!(flows.lag_seqs, 3_000);
        assert!(
            flows.failed[0].1.contains("\"amount\""),
            "{:?}",
            flows.failed
        );

        sqlx::raw_sql("alter table flows rename column lost to amount")
            .execute(&mut connection)
            .await
            .unwrap();
        workers.until(|status| has_caught_up(status, "flows")).await;
        workers.stop().await;
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_fails_keeps_no_other_partition() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 3, 0, 1_000).await;
        sqlx::raw_sql("alter table flows add constraint trap check (partition <> 1)")
            .execute(&mut connection)
            .await
            .unwrap();
        let mut workers = Workers::start(&scratch.options, 2);
        let status = workers
            .until(|status| {
                let mut models = status.models.iter();
                models.any(|m| m.model == "flows" && m.lag_seqs == 1_000)
            })
            .await;
        let flows = status.models.iter().find(|m| m.model == "flows").unwrap();
        assert!(
            flows.failed.iter().all(|(partition, _)| *partition == 1),
            "{:?}",
            flows.failed
        );
        sqlx::raw_sql("alter table flows drop constraint trap")
            .execute(&mut connection)
            .await
            .unwrap();
        until_folded(&mut connection).await;
        workers.stop().await;
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn lost_connections_are_made_again() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 2, 0, 1_000).await;
        let mut workers = Workers::start(&scratch.options, 2);
        workers.until(Status::is_ready).await;
        for end in [2_000, 3_000] {
            let ended: i64 = sqlx::query_scalar(
                "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and application_name like 'millrace project %'",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            assert!(ended > 0);
            fill(&mut connection, 2, end - 1_000, end).await;
            until_folded(&mut connection).await;
        }
        workers.stop().await;
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn without_a_database_they_wait_and_stop_when_told() {
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(port);
    let mut workers = Workers::start(&nowhere, 2);
    let status = workers
        .until(|status| matches!(status.database, Database::Away(_)))
        .await;
    assert!(!status.is_ready());
    workers.stop().await;
}

#[tokio::test]
async fn a_model_that_is_not_installed_is_named() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        sqlx::raw_sql("delete from read_models where model = 'flows'")
            .execute(&mut connection)
            .await
            .unwrap();
        let mut workers = Workers::start(&scratch.options, 1);
        let status = workers
            .until(|status| matches!(status.database, Database::Away(_)))
            .await;
        let expected = "read model flows is not installed; run: millrace migrate";
        assert_eq!(status.database, Database::Away(expected.into()));
        millrace_readmodels::install(&mut connection).await.unwrap();
        workers.until(Status::is_ready).await;
        workers.stop().await;
    })
    .await;
}
