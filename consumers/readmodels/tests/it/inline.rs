//! Folding inside a batch.

use millrace_readmodels::{
    Error, INLINE_GAP_MAX, Inline, Model, all, fold_inline, fold_untroubled, record_failure, verify,
};
use sqlx::{Connection as _, PgConnection};

use crate::ledger::{expected, fill, reported};
use crate::scratch::in_scratch;

fn daily_totals() -> &'static Model {
    let found = all().iter().find(|model| model.name == "daily_totals");
    found.unwrap()
}

fn folded(outcome: &Inline) -> (usize, usize) {
    (outcome.folded, outcome.behind)
}

async fn seqs(connection: &mut PgConnection) -> Vec<(i32, i64)> {
    let select = "select partition, seq from millrace.read_model_positions
         where model = 'daily_totals' order by partition";
    sqlx::query_as(select).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn odd_ranges_of_every_model_add_up_to_an_independent_computation() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        sqlx::raw_sql("set timezone = 'Pacific/Kiritimati'")
            .execute(&mut connection)
            .await
            .unwrap();
        fill(&mut connection, 3, 0, 20_000).await;
        for end in [1, 2, 7, 8, 1_000, 9_999, 19_999, 20_000, 20_000] {
            // The partitions are at different places, and there is one round with nothing new.
            let ends = [(0, end), (1, 20_000 - end / 3), (2, (end * 2).min(20_000))];
            let ends: Vec<_> = ends
                .into_iter()
                .filter(|(p, _)| *p != 1 || end == 20_000)
                .collect();
            for model in all() {
                // The first time the positions are not there.
                let found = if end == 1 { 0 } else { ends.len() };
                if end % 2 == 1 {
                    let all = fold_untroubled(&mut connection, model, &ends, i64::MAX)
                        .await
                        .unwrap();
                    assert_eq!(all, found == ends.len());
                }
                let outcome = fold_inline(&mut connection, model, &ends, i64::MAX)
                    .await
                    .unwrap();
                assert_eq!(folded(&outcome), (ends.len(), 0));
            }
        }
        for model in all() {
            fold_inline(&mut connection, model, &[(1, 20_000)], i64::MAX)
                .await
                .unwrap();
        }
        let expected = expected(&mut connection).await;
        assert_eq!(reported(&mut connection).await, expected);
        // One fold of everything gives the same slices.
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn a_locked_position_is_skipped_without_waiting() {
    in_scratch(|scratch| async move {
        let (mut connection, mut other) = (scratch.connect().await, scratch.connect().await);
        fill(&mut connection, 2, 0, 100).await;
        let model = daily_totals();
        fold_inline(&mut connection, model, &[(0, 10), (1, 10)], INLINE_GAP_MAX)
            .await
            .unwrap();

        let mut held = other.begin().await.unwrap();
        sqlx::raw_sql("select from read_model_positions where partition = 1 for update")
            .execute(&mut *held)
            .await
            .unwrap();
        sqlx::raw_sql("set lock_timeout = '1ms'")
            .execute(&mut connection)
            .await
            .unwrap();
        let ends = [(0, 100), (1, 100)];
        let outcome = fold_inline(&mut connection, model, &ends, INLINE_GAP_MAX)
            .await
            .unwrap();
        assert_eq!(folded(&outcome), (1, 1));
        assert!(
            !record_failure(&mut connection, model, 1, "not mine")
                .await
                .unwrap()
        );
        held.rollback().await.unwrap();
        assert_eq!(seqs(&mut connection).await, [(0, 100), (1, 10)]);

        let outcome = fold_inline(&mut connection, model, &ends, INLINE_GAP_MAX)
            .await
            .unwrap();
        assert_eq!(folded(&outcome), (2, 0));
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn what_is_too_far_behind_is_left_to_the_background() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 2, 0, 100).await;
        let ends = [(0, 100), (1, 20)];
        let outcome = fold_inline(&mut connection, daily_totals(), &ends, 50)
            .await
            .unwrap();
        assert_eq!(folded(&outcome), (1, 1));
        assert_eq!(seqs(&mut connection).await, [(0, 0), (1, 20)]);
    })
    .await;
}

#[tokio::test]
async fn a_fold_that_is_rolled_back_counts_nothing() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 100).await;
        let mut db_tx = connection.begin().await.unwrap();
        fold_inline(&mut db_tx, daily_totals(), &[(0, 100)], INLINE_GAP_MAX)
            .await
            .unwrap();
        db_tx.rollback().await.unwrap();
        for _ in 0..2 {
            fold_inline(&mut connection, daily_totals(), &[(0, 100)], INLINE_GAP_MAX)
                .await
                .unwrap();
        }
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
        assert_eq!(seqs(&mut connection).await, [(0, 100)]);
    })
    .await;
}

#[tokio::test]
async fn a_broken_fold_leaves_the_model_behind_and_the_batch_whole() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 100).await;
        sqlx::raw_sql("alter table daily_totals rename column amount to lost")
            .execute(&mut connection)
            .await
            .unwrap();
        let (model, ends) = (daily_totals(), [(0, 100)]);

        for is_news in [true, false] {
            let mut db_tx = connection.begin().await.unwrap();
            sqlx::raw_sql(
                "update read_model_positions set failed_at = failed_at - interval '1 hour';
                 savepoint fold",
            )
            .execute(&mut *db_tx)
            .await
            .unwrap();
            let failure = fold_inline(&mut db_tx, model, &ends, INLINE_GAP_MAX).await.unwrap_err();
            assert!(matches!(failure.error, Error::Broken(_)), "{failure:?}");
            assert_eq!(failure.partitions, [0]);
            sqlx::raw_sql("rollback to savepoint fold").execute(&mut *db_tx).await.unwrap();
            let failure = failure.to_string();
            assert_eq!(record_failure(&mut db_tx, model, 0, &failure).await.unwrap(), is_news);
            db_tx.commit().await.unwrap();
        }
        let recorded: (i64, i32, String) =
            sqlx::query_as("select seq, failures, error from read_model_positions")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!((recorded.0, recorded.1), (0, 2));
        assert!(recorded.2.contains("amount") && recorded.2.contains("42703"), "{}", recorded.2);

        // It is not tried again at once, and then it works.
        let outcome = fold_inline(&mut connection, model, &ends, INLINE_GAP_MAX).await.unwrap();
        assert_eq!(folded(&outcome), (0, 1));
        sqlx::raw_sql(
            "alter table daily_totals rename column lost to amount;
             update read_model_positions set failed_at = failed_at - interval '1 hour', failures = 5000",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        let outcome = fold_inline(&mut connection, model, &ends, INLINE_GAP_MAX).await.unwrap();
        assert_eq!(folded(&outcome), (1, 0));
        let clean: bool = sqlx::query_scalar(
            "select error is null and failed_at is null and failures = 0 from read_model_positions",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert!(clean);
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn what_is_in_trouble_is_left_to_the_careful_fold() {
    in_scratch(|scratch| async move {
        let (mut connection, mut other) = (scratch.connect().await, scratch.connect().await);
        fill(&mut connection, 4, 0, 100).await;
        let model = daily_totals();
        let start = [(0, 10), (1, 10), (2, 10), (3, 60)];
        fold_inline(&mut connection, model, &start, INLINE_GAP_MAX)
            .await
            .unwrap();
        record_failure(&mut connection, model, 0, "broken")
            .await
            .unwrap();
        let mut held = other.begin().await.unwrap();
        sqlx::raw_sql("select from read_model_positions where partition = 1 for update")
            .execute(&mut *held)
            .await
            .unwrap();
        // Partition 0 has failed, 1 is in other hands, 2 is too far behind.
        let ends = [(0, 100), (1, 100), (2, 100), (3, 100)];
        let all = fold_untroubled(&mut connection, model, &ends, 50)
            .await
            .unwrap();
        assert!(!all);
        assert_eq!(
            seqs(&mut connection).await,
            [(0, 10), (1, 10), (2, 10), (3, 100)]
        );
        held.rollback().await.unwrap();
        let all = fold_untroubled(&mut connection, model, &ends[1..], INLINE_GAP_MAX)
            .await
            .unwrap();
        assert!(all);
        assert_eq!(
            seqs(&mut connection).await,
            [(0, 10), (1, 100), (2, 100), (3, 100)]
        );
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}

#[tokio::test]
async fn a_position_beyond_the_ledger_is_an_error() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 100).await;
        fold_inline(&mut connection, daily_totals(), &[(0, 100)], INLINE_GAP_MAX)
            .await
            .unwrap();
        let failure =
            fold_inline(&mut connection, daily_totals(), &[(0, 99)], INLINE_GAP_MAX).await;
        let text = failure.unwrap_err().to_string();
        assert_eq!(text, "partition 0 is folded up to seq 100, but ends at 99");
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_fails_leaves_the_others_alone() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 3, 0, 100).await;
        let (model, ends) = (daily_totals(), [(0, 100), (1, 100), (2, 100)]);
        // Only the rows of partition 1 cannot be folded.
        let break_it = "alter table daily_totals add constraint broken check (partition <> 1)";
        sqlx::raw_sql(break_it)
            .execute(&mut connection)
            .await
            .unwrap();
        let mut tries = 0;
        while seqs(&mut connection).await != [(0, 100), (1, 0), (2, 100)] {
            tries += 1;
            assert!(tries < 10, "{:?}", seqs(&mut connection).await);
            let mut db_tx = connection.begin().await.unwrap();
            let due = "update read_model_positions set failed_at = failed_at - interval '1 hour'
                       where partition <> 1 or failures = 1; savepoint fold";
            sqlx::raw_sql(due).execute(&mut *db_tx).await.unwrap();
            if let Err(failed) = fold_inline(&mut db_tx, model, &ends, INLINE_GAP_MAX).await {
                sqlx::raw_sql("rollback to savepoint fold")
                    .execute(&mut *db_tx)
                    .await
                    .unwrap();
                for partition in &failed.partitions {
                    record_failure(&mut db_tx, model, *partition, "broken")
                        .await
                        .unwrap();
                }
            }
            db_tx.commit().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_lock_on_the_models_table_leaves_the_model_behind() {
    in_scratch(|scratch| async move {
        let (mut connection, mut other) = (scratch.connect().await, scratch.connect().await);
        fill(&mut connection, 1, 0, 100).await;
        let mut held = other.begin().await.unwrap();
        sqlx::raw_sql("lock table daily_totals in share mode")
            .execute(&mut *held)
            .await
            .unwrap();
        sqlx::raw_sql("set lock_timeout = '10ms'")
            .execute(&mut connection)
            .await
            .unwrap();
        let ends = [(0, 100)];
        let failed = fold_inline(&mut connection, daily_totals(), &ends, INLINE_GAP_MAX).await;
        let failed = failed.unwrap_err();
        assert!(matches!(failed.error, Error::Broken(_)), "{failed:?}");
        held.rollback().await.unwrap();
        fold_inline(&mut connection, daily_totals(), &ends, INLINE_GAP_MAX)
            .await
            .unwrap();
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
    })
    .await;
}
