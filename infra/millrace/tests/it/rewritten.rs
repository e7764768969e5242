//! Who changes rows and computes the chain anew is found by the log, by what was parked, or by a checkpoint.

use millrace_publisher::RawRecord;

use crate::place::Place;
use crate::records::{id, publish, publish_raw, transfer};
use crate::rewrite::{Copy, rewrite_chain};
use crate::tampering::{ledger_with_everything, names};

/// A row is changed with everything that depends on it.
const RICHER: &str = "
    update balances set debits = debits + 1000 where account = 'a';
    update balances set credits = credits + 1000 where account = 'b';
    delete from daily_totals;
    update read_model_positions set seq = 0;";

#[tokio::test]
async fn history_that_was_written_anew_is_found_by_the_log() {
    let place = ledger_with_everything().await;
    let richer = transfer(7, "a", "b", 1107).digest();
    let digest = hex::encode(richer);
    let last = "batch = (select max(batch) from batches)";
    let unknown = id(777);
    for (statement, named) in [
        (
            format!("update ledger set amount = 1107, digest = '\\x{digest}' where seq = 7; {RICHER}"),
            "partition 0, offset 7",
        ),
        // A parked and a refused record with other bytes.
        ("update parked set value = 'other'".into(), "partition 0, offset 22"),
        ("update refused set headers = '\\x0000'".into(), "partition 0, offset 21"),
        // A duplicate that is said to have been no record.
        (
            "update batches set duplicate = duplicate - 1, skipped = skipped + 1 where duplicate > 0"
                .into(),
            "partition 0, offset",
        ),
        // A rejected transaction that is said to have been a duplicate. It was the 21st of the first batch.
        (
            "delete from ledger where seq = 20;
                 update ledger set seq = seq - 1 where seq > 20; update refused set seq = seq - 1;
                 update ledger set debit_previous = debit_previous - 1 where debit_previous > 20;
                 update ledger set credit_previous = credit_previous - 1 where credit_previous > 20;
                 update balances set last_seq = last_seq - 1 where last_seq > 20;
                 update parked set seq = seq - 1; update positions set next_seq = next_seq - 1;
                 update read_model_positions set seq = 0; delete from daily_totals;
                 update batches set rejected = rejected - 1, duplicate = duplicate + 1 where rejected > 0;
                 update batches set next_seq = next_seq - 1 where next_seq > 20;
                 update batches set first_seq = first_seq - 1 where first_seq > 20"
                .into(),
            "partition 0, offset 20",
        ),
        // A transaction that nobody sent, in place of the duplicate.
        (
            format!(
                "insert into ledger select (select next_seq from positions), 33, amount, occurred_at,
                     (select recorded_at from batches where {last}), partition, 14, '{unknown}',
                     '\\x{}', currency, debit_account, credit_account, kind, source, reference, metadata
                 from ledger where seq = 7;
                 update positions set next_seq = next_seq + 1;
                 update batches set next_seq = next_seq + 1, rejected = rejected + 1,
                     duplicate = duplicate - 1 where {last}",
                hex::encode(transfer(777, "a", "b", 107).digest())
            ),
            "partition 0, offset 33",
        ),
    ] {
        let copy = Copy::of(&place).await;
        copy.change(&statement).await;
        rewrite_chain(&mut copy.connect().await, 0).await;
        // The tables alone are as they must be.
        let ended = copy.run(&place, &["verify", "--no-log"]).await;
        assert_eq!(ended.code, Some(0), "{statement}: {ended:?}");
        let ended = copy.run(&place, &["verify"]).await;
        assert_eq!(ended.code, Some(1), "{statement}: {ended:?}");
        assert!(names(&ended, named), "{statement}: no {named:?} in {ended:?}");
    }
}

/// Garbage with a key, and a transaction that waited behind it until the garbage was discarded.
async fn ledger_with_a_replay() -> Place {
    let place = Place::new("replayed", 1).await;
    let publisher = place.publisher().await;
    let garbage = RawRecord {
        key: Some(b"c"),
        payload: Some(b"garbage"),
        ..RawRecord::default()
    };
    publish_raw(&publisher, garbage).await;
    let twice = transfer(1, "c", "b", 107);
    publish(&publisher, [&twice, &twice, &transfer(2, "c", "b", 5)]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let discard = [
        "parked",
        "discard",
        "--parked-for",
        "undecodable",
        "--reason",
        "not ours",
    ];
    place.run(&discard).await.expect(0);
    place.run(&["parked", "replay", "--all"]).await.expect(0);
    ledger.stop().await.expect(0);
    place.verify().await;
    place
}

#[tokio::test]
async fn what_was_replayed_must_be_what_was_parked() {
    let place = ledger_with_a_replay().await;
    let whole = place.run(&["verify"]).await.expect(0);
    let counted =
        "4 offsets = 2 posted + 1 duplicate + 0 rejected + 0 parked + 1 discarded + 0 skipped";
    assert!(whole.out.contains(counted), "{whole:?}");
    let richer = hex::encode(transfer(1, "c", "b", 1107).digest());
    let change = format!(
        "update ledger set amount = 1107, digest = '\\x{richer}' where id = '{}';
         update balances set debits = debits + 1000 where account = 'c';
         update balances set credits = credits + 1000 where account = 'b';
         delete from daily_totals; update read_model_positions set seq = 0",
        id(1)
    );
    for (statement, named) in [
        (&change[..], "partition 0, offset 1"),
        // Discarded instead of found known.
        (
            "update parked_resolutions set resolution = 'discarded' where parked_seq = 2;
             update batches set duplicate = duplicate - 1, discarded = discarded + 1
             where duplicate > 0",
            "",
        ),
        (
            "update ledger set log_offset = 2 where log_offset = 1",
            "partition 0, offset 1",
        ),
        (
            "update parked set value = 'other' where seq = 1",
            "partition 0, offset 1",
        ),
    ] {
        let copy = Copy::of(&place).await;
        copy.change(statement).await;
        let ended = copy.run(&place, &["verify", "--no-log"]).await.expect(1);
        assert!(names(&ended, "partition 0"), "{statement}: {ended:?}");
        rewrite_chain(&mut copy.connect().await, 0).await;
        let ended = copy.run(&place, &["verify", "--no-log"]).await;
        // What an operator decides is in no log: only a checkpoint shows that it was another thing.
        let is_found = !named.is_empty();
        assert_eq!(
            ended.code,
            Some(i32::from(is_found)),
            "{statement}: {ended:?}"
        );
        assert!(
            !is_found || names(&ended, named),
            "{statement}: no {named:?} in {ended:?}"
        );
    }
}
