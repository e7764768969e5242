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
        ("an offset changed", moved, "the row has offset 70"),
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
            .contains("FAILED checkpoint: partition 0, after 3 batches: chain head marked as"),
        "{ended:?}"
    );
    assert!(
        ended.out.contains("what lies before was changed"),
        "{ended:?}"
    );
    // An export of it leads to other heads.
    copy.run(&place, &["export", "anew.ndjson.gz"])
        .await
        .expect(0);
    let ended = check(&place, "anew.ndjson.gz").await.expect(1);
    assert!(ended.out.contains("chain head marked as"), "{ended:?}");

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

#[tokio::test]
async fn what_a_checkpoint_says_is_compared_and_not_its_heads_alone() {
    let place = marked().await;
    let text = std::fs::read_to_string(path(&place, "month.json")).unwrap();
    let verify = ["verify", "--no-log", "--checkpoint", "other.json"];
    std::fs::write(path(&place, "other.json"), &text).unwrap();
    let unsigned = place.run(&verify).await.expect(0);
    let said = "1 marks of the checkpoint, whose signature was not checked";
    assert!(unsigned.out.contains(said), "{unsigned:?}");
    let signed = ["verify", "--no-log", "--checkpoint", "month.json"];
    let signed = [&signed[..], &["--public-key", "bank.key.pub"]].concat();
    let signed = place.run(&signed).await.expect(0);
    assert!(
        signed.out.contains("whose signature is right"),
        "{signed:?}"
    );
    place.run(&["export", "ledger.ndjson"]).await.expect(0);
    let mut empty: serde_json::Value = serde_json::from_str(&text).unwrap();
    empty["partitions"] = serde_json::json!([]);
    empty["taken_at"] = "2100-01-01T00:00:00Z".into();
    for (changed, named) in [
        (
            text.replacen("\"posted\": 30", "\"posted\": 31", 1),
            "counts marked as 31 posted",
        ),
        (
            text.replacen("\"position\": 34", "\"position\": 35", 1),
            "position marked as 35",
        ),
        (
            text.replacen("\"incarnation\": 1", "\"incarnation\": 2", 1),
            "incarnation marked as 2",
        ),
        (
            text.replacen("\"next_seq\": 33", "\"next_seq\": 32", 1),
            "next seq marked as 32",
        ),
        (empty.to_string(), "which has no mark of it"),
    ] {
        assert_ne!(changed, text, "{named}");
        std::fs::write(path(&place, "other.json"), changed).unwrap();
        let ended = place.run(&verify).await;
        assert_eq!(ended.code, Some(1), "{named}: {ended:?}");
        assert!(ended.out.contains(named), "no {named:?} in {ended:?}");
        // Whoever signs that has it found by an export too.
        std::fs::remove_file(path(&place, "other.json.sig")).ok();
        let sign = ["checkpoint", "sign", "other.json", "--key", "bank.key"];
        place.run(&sign).await.expect(0);
        let check = [
            "checkpoint",
            "check",
            "other.json",
            "--public-key",
            "bank.key.pub",
        ];
        let check = [&check[..], &["--export", "ledger.ndjson"]].concat();
        let ended = place.run(&check).await;
        assert_eq!(ended.code, Some(1), "{named}: {ended:?}");
        assert!(ended.out.contains(named), "no {named:?} in {ended:?}");
    }
}

#[tokio::test]
async fn an_export_goes_where_it_is_told_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = ledger_with_everything().await;
    let mode = |name| {
        std::fs::metadata(path(&place, name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    let shown = place.run(&["export", "-"]).await.expect(0);
    assert!(shown.out.starts_with("{\"export\":"), "{shown:?}");
    assert!(shown.out.trim_end().ends_with('}'), "{shown:?}");
    place.run(&["export", "a.ndjson"]).await.expect(0);
    assert_eq!(mode("a.ndjson"), 0o600);
    std::os::unix::fs::symlink("a.ndjson", path(&place, "link")).unwrap();
    std::fs::write(path(&place, "a.ndjson"), "old").unwrap();
    place.run(&["export", "link"]).await.expect(0);
    assert!(
        std::fs::symlink_metadata(path(&place, "link"))
            .unwrap()
            .is_symlink()
    );
    let text = std::fs::read_to_string(path(&place, "a.ndjson")).unwrap();
    assert_eq!(text, shown.out, "the link is followed");
    let pipe = path(&place, "pipe");
    let mkfifo = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(mkfifo.unwrap().success());
    let reading = tokio::task::spawn_blocking({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    place.run(&["export", "pipe"]).await.expect(0);
    assert_eq!(reading.await.unwrap(), text);
    place
        .run(&["export", "."])
        .await
        .expect(1)
        .names(&["is a directory"]);
    // What fails leaves nothing behind.
    place
        .execute(
            "set session_replication_role = replica; delete from millrace.ledger where seq = 7",
        )
        .await;
    place
        .run(&["export", "b.ndjson"])
        .await
        .expect(1)
        .names(&["seq 7"]);
    let left = std::fs::read_dir(place.dir()).unwrap();
    let mut left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.all(|name| !name.starts_with("b.ndjson")));
}
