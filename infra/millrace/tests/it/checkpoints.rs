//! A checkpoint that was kept elsewhere shows what was changed since, in a database and in an exported file.

use std::io::Read as _;
use std::path::PathBuf;

use crate::place::Place;
use crate::process::Ended;
use crate::records::{publish, transfer};
use crate::rewrite::{Copy, rewrite_chain};
use crate::tampering::ledger_with_everything;

/// A ledger, and a signed checkpoint of it in the place's directory.
async fn marked() -> Place {
    let place = ledger_with_everything().await;
    for arguments in [
        &["checkpoint", "keygen", "bank.key"][..],
        &["checkpoint", "keygen", "other.key"],
        &["checkpoint", "write", "month.json", "--key", "bank.key"],
    ] {
        place.run(arguments).await.expect(0);
    }
    place
}

fn path(place: &Place, name: &str) -> PathBuf {
    place.dir().join(name)
}

async fn check(place: &Place, export: &str) -> Ended {
    let arguments = [
        "checkpoint",
        "check",
        "month.json",
        "--public-key",
        "bank.key.pub",
        "--export",
        export,
    ];
    place.run(&arguments).await
}

#[tokio::test]
async fn a_signature_is_of_one_file_and_one_key() {
    let place = marked().await;
    let with = |key: &'static str| ["checkpoint", "check", "month.json", "--public-key", key];
    place.run(&with("bank.key.pub")).await.expect(0);
    let wrong = place.run(&with("other.key.pub")).await.expect(1);
    wrong.names(&["month.json.sig", "other.key.pub", "signed with another key"]);
    let key_mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(path(&place, "bank.key"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(key_mode & 0o777, 0o600);
    let text = std::fs::read_to_string(path(&place, "month.json")).unwrap();
    for (changed, what) in [
        (
            text.replacen("\"next_seq\": 33", "\"next_seq\": 34", 1),
            "a number",
        ),
        (text.clone() + "\n", "a line more"),
    ] {
        assert_ne!(changed, text, "{what}");
        std::fs::write(path(&place, "month.json"), changed).unwrap();
        let ended = place.run(&with("bank.key.pub")).await;
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        ended.names(&["the file was changed"]);
    }
    // It is not replaced, and can be signed by somebody else.
    place
        .run(&["checkpoint", "write", "month.json"])
        .await
        .expect(1)
        .names(&["month.json"]);
    place
        .run(&["checkpoint", "write", "plain.json"])
        .await
        .expect(0);
    place
        .run(&["checkpoint", "sign", "plain.json", "--key", "other.key"])
        .await
        .expect(0);
    place
        .run(&[
            "checkpoint",
            "check",
            "plain.json",
            "--public-key",
            "other.key.pub",
        ])
        .await
        .expect(0);
}

#[tokio::test]
async fn an_export_leads_through_the_checkpoint_without_a_database() {
    let place = marked().await;
    place.run(&["export", "then.ndjson"]).await.expect(0);
    // More comes after the checkpoint.
    let publisher = place.publisher().await;
    publish(&publisher, &[transfer(60, "a", "b", 7)]).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    ledger.stop().await.expect(0);
    place
        .run(&[
            "parked",
            "discard",
            "--parked-for",
            "undecodable",
            "--reason",
            "not ours",
        ])
        .await
        .expect(0);
    place.run(&["export", "now.ndjson.gz"]).await.expect(0);
    for export in ["then.ndjson", "now.ndjson.gz"] {
        let ended = check(&place, export).await.expect(0);
        assert!(ended.out.contains("everything holds"), "{ended:?}");
    }
    let text = std::fs::read_to_string(path(&place, "then.ndjson")).unwrap();
    for (what, content, named) in bad_exports(&text) {
        std::fs::write(path(&place, "bad.ndjson"), content).unwrap();
        let ended = check(&place, "bad.ndjson").await;
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        assert!(
            ended.out.contains(named),
            "{what}: no {named:?} in {ended:?}"
        );
    }
    cut_gzip(&place);
    check(&place, "bad.ndjson.gz").await.expect(1);
}

/// What is wrong, an export with it, and what a finding must say.
fn bad_exports(text: &str) -> Vec<(&'static str, String, &'static str)> {
    let lines: Vec<_> = text.lines().collect();
    let joined = |lines: &[&str]| lines.join("\n") + "\n";
    let (batches, rows): (Vec<usize>, Vec<usize>) =
        (1..lines.len() - 1).partition(|line| lines[*line].starts_with("{\"batch\""));
    let last_batch = *batches.last().unwrap();
    let seventh = rows[7];
    let end = format!(
        "{{\"end\":{{\"partitions\":1,\"batches\":{},\"rows\":{}}}}}",
        batches.len() - 1,
        rows.iter().filter(|row| **row < last_batch).count()
    );
    let shorter = [&lines[..last_batch], &[&end[..]]].concat();
    let without = [&lines[..seventh], &lines[seventh + 1..]].concat();
    let mut swapped = lines.clone();
    swapped.swap(seventh, seventh + 1);
    let changed = text.replacen("\"amount\":107", "\"amount\":1107", 1);
    let moved = text.replacen("\"log_offset\":7,", "\"log_offset\":70,", 1);
    vec![
        (
            "without its end",
            joined(&lines[..lines.len() - 1]),
            "truncated",
        ),
        (
            "in the middle of a line",
            text[..text.len() / 2].to_owned(),
            "truncated",
        ),
        (
            "without a batch, and an end that fits",
            joined(&shorter),
            "the export ends here",
        ),
        ("without a row", joined(&without), "not the row with seq 7"),
        ("rows swapped", joined(&swapped), "not the row with seq 7"),
        ("an amount changed", changed, "not what its digest says"),
        ("an offset changed", moved, "stored chain head"),
        (
            "more at its end",
            text.to_owned() + "{}\n",
            "more after the end",
        ),
        ("nothing", String::new(), "truncated"),
        ("something else", "{}\n".into(), "line 1"),
    ]
}

/// The beginning of a compressed export.
fn cut_gzip(place: &Place) {
    let mut gzip = Vec::new();
    let file = std::fs::File::open(path(place, "now.ndjson.gz")).unwrap();
    file.take(1000).read_to_end(&mut gzip).unwrap();
    std::fs::write(path(place, "bad.ndjson.gz"), gzip).unwrap();
}

#[tokio::test]
async fn history_that_was_written_anew_is_found_by_a_checkpoint() {
    let place = marked().await;
    let checkpoint = [
        "verify",
        "--no-log",
        "--checkpoint",
        "month.json",
        "--public-key",
        "bank.key.pub",
    ];
    let ended = place.run(&checkpoint).await.expect(0);
    assert!(ended.out.contains("1 marks of the checkpoint"), "{ended:?}");

    // A verdict, so that no other sum is touched.
    let copy = Copy::of(&place).await;
    copy.change("update ledger set verdict = 14 where verdict <> 0")
        .await;
    rewrite_chain(&mut copy.connect().await, 0).await;
    copy.run(&place, &["verify", "--no-log"]).await.expect(0);
    let ended = copy.run(&place, &checkpoint).await.expect(1);
    assert!(
        ended
            .out
            .contains("FAILED checkpoint: partition 0, at or before batch"),
        "{ended:?}"
    );
    assert!(ended.out.contains("written anew"), "{ended:?}");
    // An export of it leads to other heads.
    copy.run(&place, &["export", "anew.ndjson.gz"])
        .await
        .expect(0);
    let ended = check(&place, "anew.ndjson.gz").await.expect(1);
    assert!(ended.out.contains("the checkpoint says"), "{ended:?}");

    // So is one that has less, and another database.
    let copy = Copy::of(&place).await;
    copy.change("update log set database_id = gen_random_uuid()")
        .await;
    copy.run(&place, &checkpoint).await.expect(1);
    copy.run(&place, &["export", "other.ndjson"])
        .await
        .expect(0);
    let ended = check(&place, "other.ndjson").await.expect(1);
    assert!(
        ended.out.contains("line 1: the export is of database"),
        "{ended:?}"
    );
    let wrong = [&checkpoint[..5], &["other.key.pub"]].concat();
    place
        .run(&wrong)
        .await
        .expect(1)
        .names(&["signed with another key"]);
}
