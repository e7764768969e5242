//! Whoever changes a row behind Millrace's back is found by `millrace verify`.

use millrace_publisher::RawRecord;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::place::Place;
use crate::process::{Ended, until};
use crate::records::{publish, publish_raw, transfer};
use crate::rewrite::{Copy, rewrite_chain};

/// One of everything, in one partition: 30 posted, 1 rejected, 1 refused, 1 parked, 1 duplicate at the end.
/// What is posted has its number as `seq` and as offset up to 19.
pub async fn ledger_with_everything() -> Place {
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
    publish(&publisher, &posted[3..4]).await;
    place.drained().await;
    ledger.stop().await.expect(0);
    place.verify().await;
    let rows = "select count(*) from millrace.ledger";
    assert_eq!(place.number(rows).await, 31);
    place
}

/// Whether a line that begins with FAILED has this.
pub fn names(ended: &Ended, named: &str) -> bool {
    let mut lines = ended.out.lines();
    lines.any(|line| line.starts_with("FAILED") && line.contains(named))
}

/// Statements, and what a finding must name.
type Changes = Vec<(String, &'static str)>;

fn changes_of_the_ledger() -> Changes {
    let seven = "where partition = 0 and seq = 7";
    let digest = hex::encode(transfer(7, "a", "b", 108).digest());
    vec![
        (format!("update ledger set amount = amount + 1 {seven}"), "partition 0, batch 0, seq 7"),
        (
            format!("update ledger set amount = 108, digest = '\\x{digest}' {seven}"),
            "partition 0, batch 0",
        ),
        (format!("update ledger set credit_account = 'thief' {seven}"), "seq 7"),
        (format!("update ledger set verdict = 17 {seven}"), "partition 0"),
        (format!("update ledger set digest = sha256('x') {seven}"), "seq 7"),
        (
            format!("update ledger set recorded_at = recorded_at + interval '1 s' {seven}"),
            "partition 0, batch 0, seq 7: the row was recorded at another time",
        ),
        (format!("update ledger set metadata = '{{\"k\": \"v\"}}' {seven}"), "seq 7"),
        (format!("update ledger set log_offset = 8 {seven}"), "partition 0"),
        (format!("update ledger set debit_previous = 5 {seven}"), "threads"),
        (format!("update ledger set credit_previous = null {seven}"), "threads"),
        ("update balances set last_seq = last_seq - 1 where account = 'b'".into(), "last_seq"),
        (
            "alter table ledger alter amount drop not null; update ledger set amount = null where seq = 7"
                .into(),
            "cannot be read: column",
        ),
        (format!("delete from ledger {seven}"), "partition 0, batch 0, seq 7"),
        (
            "delete from ledger where seq = (select max(seq) from ledger)".into(),
            "partition 0",
        ),
        (
            "update ledger set seq = -1 where seq = 7; update ledger set seq = 7 where seq = 8;
             update ledger set seq = 8 where seq = -1"
                .into(),
            "partition 0, batch 0, seq 8: the row has offset 7, the one before it 8",
        ),
        (
            "insert into ledger select 999, log_offset, amount, occurred_at, recorded_at, partition,
                 verdict, gen_random_uuid(), digest, currency, debit_account, credit_account, kind,
                 source, reference, metadata from ledger where seq = 7"
                .into(),
            "partition 0, seq 999",
        ),
        (
            "insert into ledger select seq, log_offset, amount, occurred_at, recorded_at, 5,
                 verdict, gen_random_uuid(), digest, currency, debit_account, credit_account, kind,
                 source, reference, metadata from ledger where seq = 7"
                .into(),
            "partition 5, seq 7",
        ),
    ]
}

fn changes_of_raw_records() -> Changes {
    vec![
        ("update refused set value = 'other'".into(), "partition 0"),
        ("delete from refused".into(), "partition 0"),
        (
            "insert into refused select 0, 7, 7, reason, detail, recorded_at, record_timestamp, key, value,
                 headers from refused"
                .into(),
            "seq 7: both ledger and refused have the row",
        ),
        ("update parked set key = 'other'".into(), "partition 0"),
        ("update parked set value = 'other'".into(), "partition 0, offset 22"),
        ("delete from parked".into(), "partition 0"),
        ("update refused set amount = 5".into(), "partition 0"),
        (
            "insert into refused select partition, 3, log_offset, reason, detail, recorded_at,
                 record_timestamp, key, value, headers from refused"
                .into(),
            "partition 0",
        ),
        ("update parked set id = gen_random_uuid()".into(), "partition 0"),
        (
            "insert into parked select partition, seq + 1000, log_offset, reason, detail, recorded_at,
                 record_timestamp, key, value, headers from parked"
                .into(),
            "partition 0, seq 1022",
        ),
        (
            "insert into parked_resolutions values (0, 900, 22, 'discarded', 'r', 'o', now())".into(),
            "partition 0, seq 900",
        ),
    ]
}

fn changes_of_counts_and_sums() -> Changes {
    vec![
        (
            "insert into batches select partition, 77, incarnation, from_offset, from_offset, first_seq,
                 next_seq, 0, 0, 0, 0, 0, 0, 0, recorded_at, chain_head from batches where batch = 0"
                .into(),
            "partition 0, batch 77",
        ),
        ("update positions set start_offset = start_offset - 10".into(), "partition 0"),
        (
            "update batches set posted = posted - 1, duplicate = duplicate + 1 where batch = 0".into(),
            "partition 0",
        ),
        (
            "update batches set duplicate = duplicate - 1, skipped = skipped + 1 where duplicate > 0"
                .into(),
            "partition 0",
        ),
        (
            "delete from batches where batch = (select max(batch) from batches)".into(),
            "partition 0",
        ),
        (
            "update balances set credits = credits + 1 where account = 'b'".into(),
            "account b, EUR, partition 0",
        ),
        ("delete from balances where account = 'a'".into(), "account a, EUR, partition 0"),
        ("update balances set transactions = 1 where account = 'b'".into(), "account b, EUR"),
        ("update daily_totals set amount = amount + 1".into(), "daily_totals, partition 0"),
        ("delete from daily_totals".into(), "daily_totals, partition 0"),
        ("update positions set position = position + 1".into(), "partition 0"),
        ("update positions set parked_open = 0".into(), "partition 0"),
        ("delete from log".into(), "no topic that they belong to"),
        ("update positions set chain_head = sha256('x')".into(), "partition 0"),
        ("update positions set anchor_digest = sha256('x')".into(), "partition 0, position 34"),
        (
            "update batches set incarnation = 2 where batch > 0; update positions set incarnation = 2,
                 start_offset = (select from_offset from batches where batch = 1)"
                .into(),
            "nobody has accepted that incarnation 2 begins here",
        ),
        ("update positions set anchor_offset = 3".into(), "partition 0, position 34"),
        ("update positions set partition = 7".into(), "the topic has 1 partitions"),
        ("update log set topic = 'other'".into(), "topic other: it is not there"),
    ]
}

fn changes_of_the_schema() -> Changes {
    vec![
        (
            "update currencies set exponent = 0 where currency = 'EUR'".into(),
            "table currencies, EUR: the exponent is 0, and should be 2",
        ),
        ("delete from currencies where currency = 'EUR'".into(), "table currencies, EUR"),
        ("update reasons set name = 'fine' where kind = 'parked'".into(), "table reasons, parked"),
        ("drop trigger append_only on ledger".into(), "table ledger: nothing refuses"),
        ("alter table batches disable trigger append_only".into(), "table batches: nothing refuses"),
        (
            "alter table balances drop constraint balances_pkey; insert into balances select * from balances"
                .into(),
            "account a, EUR, partition 0",
        ),
        (
            "alter table balances drop constraint balances_pkey".into(),
            "table balances: it has no primary key",
        ),
        (
            "create or replace function refuse_change() returns trigger language plpgsql as
                 $$ begin return null; end $$"
                .into(),
            "table ledger: nothing refuses",
        ),
        (
            "alter table daily_totals drop constraint daily_totals_pkey;
             insert into daily_totals select * from daily_totals"
                .into(),
            "read model: daily_totals, partition 0, primary key",
        ),
        ("alter table ledger drop constraint ledger_id_key".into(), "keeps its ids unique"),
    ]
}

#[tokio::test]
async fn every_change_behind_its_back_is_found_and_its_place_named() {
    let place = ledger_with_everything().await;
    let changes = [
        changes_of_the_ledger(),
        changes_of_raw_records(),
        changes_of_counts_and_sums(),
        changes_of_the_schema(),
    ];
    for (statement, named) in changes.concat() {
        let copy = Copy::of(&place).await;
        copy.change(&statement).await;
        let ended = copy.run(&place, &["verify"]).await;
        assert_eq!(ended.code, Some(1), "{statement}: {ended:?}");
        assert!(
            names(&ended, named),
            "{statement}: no {named:?} in {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_read_model_that_lacks_outcomes_is_said() {
    let place = ledger_with_everything().await;
    let copy = Copy::of(&place).await;
    copy.change(
        "delete from read_model_positions where model = 'daily_totals'; delete from daily_totals",
    )
    .await;
    let ended = copy.run(&place, &["verify"]).await.expect(0);
    let said = "(outcomes behind: daily_totals 33,";
    assert!(ended.out.contains(said), "{ended:?}");
}

#[tokio::test]
async fn what_is_found_cannot_forge_a_line() {
    let place = ledger_with_everything().await;
    let copy = Copy::of(&place).await;
    let forged = "update balances set account = E'a\\n1 of 1 partitions: everything holds\\x1b[2J'";
    copy.change(&format!("{forged} where account = 'a'")).await;
    let ended = copy.run(&place, &["verify"]).await.expect(1);
    let lines = ended.out.lines();
    assert!(
        lines
            .clone()
            .all(|line| !line.starts_with("1 of 1 partitions: ")),
        "{ended:?}"
    );
    assert!(names(&ended, "account a\\n1 of 1"), "{ended:?}");
    assert!(!ended.out.contains('\u{1b}'), "{ended:?}");
}

#[tokio::test]
async fn a_quick_run_says_what_it_did_not_check() {
    let place = ledger_with_everything().await;
    let whole = place.run(&["verify"]).await.expect(0);
    assert!(whole.out.contains("34 records of the log"), "{whole:?}");
    assert!(
        whole.out.contains(
            "34 offsets = 30 posted + 1 duplicate + 2 rejected + 1 parked + 0 discarded + 0 skipped; 0 not yet"
        ),
        "{whole:?}"
    );
    let quick = place.run(&["verify", "--since", "1us"]).await.expect(0);
    for said in [
        " 0 rows",
        "not what is before --since, nor balances and read models",
        " 0 records of the log",
    ] {
        assert!(quick.out.contains(said), "no {said:?} in {quick:?}");
    }
    let tables = place
        .run(&["verify", "--no-log", "--since", "1h"])
        .await
        .expect(0);
    assert!(tables.out.contains(" 33 rows"), "{tables:?}");
    assert!(tables.out.contains("the log was not read"), "{tables:?}");
    // What is older than that is taken on trust.
    place
        .execute(
            "set session_replication_role = replica;
             update millrace.ledger set amount = amount + 1 where seq = 7;
             update millrace.ledger set amount = amount + 1 where seq = 32",
        )
        .await;
    let middle = "select (extract(epoch from recorded_at) * 1000000)::bigint from millrace.batches
         where first_seq <= 32 and next_seq > 32";
    let middle = place.number(middle).await;
    let middle = format!(
        "{}.{:06}Z",
        timestamp(&place, middle).await,
        middle % 1_000_000
    );
    let quick = place
        .run(&["verify", "--no-log", "--since", &middle])
        .await
        .expect(1);
    assert!(
        names(&quick, "seq 32") && !names(&quick, "seq 7"),
        "{quick:?}"
    );
}

/// The second of a moment (microseconds since 1970) as RFC 3339 without its zone.
async fn timestamp(place: &Place, micros: i64) -> String {
    let query = format!(
        "select to_char(to_timestamp({}) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')",
        micros.div_euclid(1_000_000)
    );
    let mut connection: PgConnection = place.connect().await;
    sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_the_log_does_not_have_is_said() {
    let place = ledger_with_everything().await;
    let copy = Copy::of(&place).await;
    copy.change(
        "update positions set position = position + 100;
         update batches set next_offset = next_offset + 100, skipped = skipped + 100
         where batch = (select max(batch) from batches)",
    )
    .await;
    rewrite_chain(&mut copy.connect().await, 0).await;
    copy.run(&place, &["verify", "--no-log"]).await.expect(0);
    let ended = copy.run(&place, &["verify"]).await.expect(1);
    assert!(names(&ended, "partition 0, offset 34"), "{ended:?}");

    let admin = place.kafka_admin();
    let options = rdkafka::admin::AdminOptions::new();
    let mut offsets = rdkafka::TopicPartitionList::new();
    let before = rdkafka::Offset::Offset(10);
    offsets
        .add_partition_offset(place.topic(), 0, before)
        .unwrap();
    admin.delete_records(&offsets, &options).await.unwrap();
    // What is gone is gone: the rest is compared.
    let ended = place.run(&["verify"]).await.expect(0);
    let said = "24 records of the log (10 offsets are no longer retained)";
    assert!(ended.out.contains(said), "{ended:?}");
    let copy = Copy::of(&place).await;
    copy.change(
        "update batches set recorded_at = recorded_at - interval '2 minutes' where batch = 0;
         update batches set partition = 5; delete from positions",
    )
    .await;
    let ended = copy.run(&place, &["verify"]).await.expect(1);
    let said = "partition 0, offset 10: there is no position: none of the 24 offsets";
    assert!(names(&ended, said), "{ended:?}");
    place
        .execute("update millrace.log set partitions = 2")
        .await;
    let ended = place.run(&["verify"]).await.expect(1);
    assert!(names(&ended, "it has 1 partitions"), "{ended:?}");
}

#[tokio::test]
async fn a_database_that_nothing_was_applied_to_proves_nothing() {
    let place = Place::new("verify-empty", 1).await;
    let ended = place.run(&["verify"]).await.expect(1);
    ended.names(&["no ledger has applied a topic to this database", "--no-log"]);
    assert!(
        ended.out.contains("nothing has been applied yet"),
        "{ended:?}"
    );
    let ended = place.run(&["verify", "--no-log"]).await.expect(0);
    assert!(
        ended.out.contains("nothing has been applied yet"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn it_holds_at_any_moment_beside_live_load() {
    let place = Place::new("live", 6).await;
    let mut load = place.start(&[
        "generate",
        "--count",
        "40000",
        "--rate",
        "3000",
        "--accounts",
        "200",
        "--skew",
        "zipf:1.0",
        "--seed",
        "9",
    ]);
    let replicas = [place.ledger(2).await, place.ledger(1).await];
    until("something is applied", async || {
        let batches = "select count(*) from millrace.batches";
        (place.number(batches).await > 0).then_some(())
    })
    .await;
    let mut runs = 0;
    while load.is_running() || runs < 5 {
        place.verify().await;
        place.run(&["verify", "--since", "2s"]).await.expect(0);
        runs += 1;
    }
    load.end().await.expect(0);
    place.drained().await;
    place.verify().await;
    for replica in replicas {
        replica.stop().await.expect(0);
    }
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
