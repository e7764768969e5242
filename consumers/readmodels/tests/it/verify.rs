//! Tampered slices are found.

use millrace_readmodels::{all, fold_inline, verify};

use crate::ledger::fill;
use crate::scratch::in_scratch;

#[tokio::test]
async fn changed_missing_and_invented_slices_are_named() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 2, 0, 500).await;
        for model in all() {
            fold_inline(&mut connection, model, &[(0, 400), (1, 500)], i64::MAX).await.unwrap();
        }
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
        sqlx::raw_sql(
            "update daily_totals set amount = amount + 1
                 where (day, currency, kind, partition) = (select day, currency, kind, partition
                     from daily_totals where partition = 1 order by 1, 2, 3 limit 1);
             delete from account_days where (account, currency, day, partition) = (
                 select account, currency, day, partition from account_days where account = 'a3' limit 1);
             insert into flows values ('2020-01-01', 7, 1, 'x', 'y', 'EUR', 9)",
        )
        .execute(&mut connection)
        .await
        .unwrap();

        let found = verify(&mut connection).await.unwrap().differences;
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[0].model, found[0].partition), ("daily_totals", 1));
        assert!(found[0].stored.is_some() && found[0].computed.is_some());
        assert_ne!(found[0].stored, found[0].computed);
        assert!(found[0].key.contains("\"day\""), "{}", found[0].key);
        assert_eq!((found[1].model, &found[1].stored), ("account_days", &None));
        assert!(found[1].key.contains("\"a3\""), "{}", found[1].key);
        assert_eq!((found[2].model, &found[2].computed), ("flows", &None));
        assert_eq!(
            found[2].place(),
            "flows, partition 7, {\"debit_account\" : \"x\", \"credit_account\" : \"y\", \
             \"currency\" : \"EUR\", \"month\" : \"2020-01-01\", \"partition\" : 7}"
        );
        assert!(found[2].to_string().ends_with("the ledger says nothing"), "{}", found[2]);
    })
    .await;
}

#[tokio::test]
async fn a_fold_counted_twice_or_a_position_too_far_is_found() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 1, 0, 100).await;
        let model = &all()[2];
        fold_inline(&mut connection, model, &[(0, 100)], i64::MAX)
            .await
            .unwrap();
        sqlx::raw_sql("update read_model_positions set seq = 50")
            .execute(&mut connection)
            .await
            .unwrap();
        fold_inline(&mut connection, model, &[(0, 100)], i64::MAX)
            .await
            .unwrap();
        assert!(
            !verify(&mut connection)
                .await
                .unwrap()
                .differences
                .is_empty()
        );

        sqlx::raw_sql("truncate flows; update read_model_positions set seq = 0")
            .execute(&mut connection)
            .await
            .unwrap();
        fold_inline(&mut connection, model, &[(0, 100)], i64::MAX)
            .await
            .unwrap();
        assert_eq!(verify(&mut connection).await.unwrap().differences, []);
        sqlx::raw_sql("update read_model_positions set seq = 101")
            .execute(&mut connection)
            .await
            .unwrap();
        let found = verify(&mut connection).await.unwrap().differences;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].place(), "flows, partition 0, position");
        assert_eq!(
            found[0].to_string(),
            "stored is 101, the ledger says at most 100"
        );
    })
    .await;
}
