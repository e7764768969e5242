//! Whoever changes a row behind Millrace's back is found by `millrace verify`.

use millrace_publisher::RawRecord;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::place::Place;
use crate::process::Ended;
use crate::records::{publish, publish_raw, transfer};

/// One of everything, in one partition: 30 posted, 1 rejected, 1 refused, 1 parked.
async fn ledger_with_everything() -> Place {
    let place = Place::new("tamper", 1).await;
    place
        .run(&["accounts", "set", "poor", "--overdraft-limit", "0"])
        .await
        .expect(0);
    let publisher = place.publisher().await;
    let posted: Vec<_> = (0..30)
        .map(|n| transfer(n, "a", "b", 100 + i64::try_from(n).unwrap()))
        .collect();
    publish(&publisher, &posted[..20]).await;
    publish(
        &publisher,
        &[transfer(50, "poor", "b", 1), transfer(0, "a", "b", 9)],
    )
    .await;
    let garbage = RawRecord {
        key: Some(b"garbage"),
        payload: Some(b"garbage"),
        ..RawRecord::default()
    };
    publish_raw(&publisher, garbage).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    publish(&publisher, &posted[20..]).await;
    place.drained().await;
    ledger.stop().await.expect(0);
    place.verify().await;
    let rows = "select count(*) from millrace.ledger";
    assert_eq!(place.number(rows).await, 31);
    place
}

#[tokio::test]
async fn every_change_behind_its_back_is_found_and_its_place_named() {
    let place = ledger_with_everything().await;
    let second = "where partition = 0 and seq = 7";
    for (number, (table, statement, named)) in [
        ("ledger", format!("update TABLE set amount = amount + 1 {second}"), "partition 0, batch 0, seq 7"),
        ("ledger", format!("update TABLE set credit_account = 'thief' {second}"), "seq 7"),
        ("ledger", format!("update TABLE set verdict = 17 {second}"), "partition 0"),
        ("ledger", format!("update TABLE set digest = sha256('x') {second}"), "seq 7"),
        ("ledger", format!("update TABLE set recorded_at = recorded_at + interval '1 s' {second}"), "partition 0"),
        ("ledger", format!("update TABLE set metadata = '{{\"k\": \"v\"}}' {second}"), "seq 7"),
        ("ledger", format!("update TABLE set log_offset = 8 {second}"), "partition 0"),
        ("ledger", format!("delete from TABLE {second}"), "partition 0, batch 0, seq 7"),
        ("ledger", "delete from TABLE where seq = (select max(seq) from TABLE)".into(), "partition 0"),
        ("ledger", "insert into TABLE select 999, log_offset, amount, occurred_at, recorded_at,
             partition, verdict, gen_random_uuid(), digest, currency, debit_account, credit_account, kind,
             source, reference, metadata from TABLE where seq = 7".into(), "partition 0, seq 999"),
        ("refused", "update TABLE set value = 'other'".into(), "partition 0"),
        ("refused", "delete from TABLE".into(), "partition 0"),
        ("parked", "update TABLE set key = 'other'".into(), "partition 0"),
        ("parked", "delete from TABLE".into(), "partition 0"),
        ("refused", "update TABLE set amount = 5".into(), "partition 0"),
        ("refused", "insert into TABLE select partition, 3, log_offset, reason, detail, recorded_at,
             record_timestamp, key, value, headers from TABLE".into(), "partition 0"),
        ("parked", "update TABLE set id = gen_random_uuid()".into(), "partition 0"),
        ("parked", "insert into TABLE select partition, seq + 1000, log_offset, reason, detail, recorded_at,
             record_timestamp, key, value, headers from TABLE".into(), "partition 0, seq 1022"),
        ("batches", "insert into TABLE select partition, 77, incarnation, from_offset, from_offset, first_seq,
             next_seq, 0, 0, 0, 0, 0, 0, 0, recorded_at, chain_head from TABLE where batch = 0".into(), "partition 0, batch 77"),
        ("positions", "update TABLE set start_offset = start_offset - 10".into(), "partition 0"),
        ("batches", "update TABLE set posted = posted - 1, duplicate = duplicate + 1 where batch = 0".into(), "partition 0"),
        ("batches", "delete from TABLE where batch = (select max(batch) from TABLE)".into(), "partition 0"),
        ("balances", "update TABLE set credits = credits + 1 where account = 'b'".into(), "account b, EUR, partition 0"),
        ("balances", "delete from TABLE where account = 'a'".into(), "account a, EUR, partition 0"),
        ("balances", "update TABLE set transactions = 1 where account = 'b'".into(), "account b, EUR"),
        ("positions", "update TABLE set position = position + 1".into(), "partition 0"),
        ("positions", "update TABLE set parked_open = 0".into(), "partition 0"),
        ("positions", "update TABLE set chain_head = sha256('x')".into(), "partition 0"),
    ]
    .into_iter()
    .enumerate()
    {
        let statement = statement.replace("TABLE", &format!("millrace.{table}"));
        let ended = tamper_and_verify(&place, number, table, &statement).await;
        assert_eq!(ended.code, Some(1), "{statement}: {ended:?}");
        let failed = ended.out.lines().any(|line| line.starts_with("FAILED") && line.contains(named));
        assert!(failed, "{statement}: no {named:?} in {ended:?}");
    }
}

/// Changes a copy of the database with its triggers off.
async fn tamper_and_verify(place: &Place, number: usize, table: &str, statement: &str) -> Ended {
    let original = place.database_url();
    let (server, name) = original.rsplit_once('/').unwrap();
    let copy = format!("{name}-{number}");
    let mut admin = PgConnection::connect(&format!("{server}/postgres"))
        .await
        .unwrap();
    let create = format!("create database \"{copy}\" template \"{name}\"");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut admin)
        .await
        .unwrap();
    let url = format!("{server}/{copy}");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let change = format!(
        "alter table millrace.{table} disable trigger user; {statement};
         alter table millrace.{table} enable trigger user"
    );
    sqlx::raw_sql(AssertSqlSafe(change))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let mut verify = place.command(&["verify"]);
    verify.env("DATABASE_URL", url);
    let ended = place.start_command(verify, "verify").end().await;
    let drop = format!("drop database \"{copy}\"");
    sqlx::raw_sql(AssertSqlSafe(drop))
        .execute(&mut admin)
        .await
        .unwrap();
    ended
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_the_ledger() {
    let place = ledger_with_everything().await;
    let mut connection = place.connect().await;
    for role in ["none", "millrace_migrator", "millrace_writer"] {
        for table in ["ledger", "refused", "parked", "batches"] {
            for statement in [
                format!("delete from millrace.{table}"),
                format!("update millrace.{table} set recorded_at = now()"),
                format!("truncate millrace.{table} cascade"),
            ] {
                let tried = format!("set role {role}; {statement}");
                let refused = sqlx::raw_sql(AssertSqlSafe(tried))
                    .execute(&mut connection)
                    .await;
                let error = refused.expect_err(&statement).to_string();
                let fits = error.contains("append-only") || error.contains("permission denied");
                assert!(fits, "{role}: {statement}: {error}");
            }
        }
    }
    place.verify().await;
}
