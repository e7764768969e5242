//! The documents tell the truth: Schemathesis makes requests of them, good and bad ones, and holds
//! every answer against them.

use std::path::PathBuf;
use std::process::Command;

use millrace_publisher::RawRecord;
use serde_json::Value;

use crate::http::{Http, JSON};
use crate::place::Place;
use crate::records::{json, publish_raw, transfer};
use crate::servers::{python, repository};

/// `schemathesis` beside the tests' Python.
fn schemathesis() -> Command {
    let interpreter = PathBuf::from(python().get_program());
    Command::new(interpreter.with_file_name("schemathesis"))
}

/// Every check must hold for every operation; `examples` bounds the random requests of each kind.
async fn holds_its_document(place: &Place, http: &Http, examples: &str) {
    let settings = repository().join("infra/test");
    let mut command = schemathesis();
    command
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", http.address))
        .args(["--checks", "all", "--mode", "all", "--seed", "1"])
        .args(["--max-examples", examples, "--no-color"])
        .args(["--generation-database", "none"])
        .env("SCHEMATHESIS_HOOKS", settings.join("schemathesis_hooks.py"))
        .current_dir(place.dir());
    let ended = place.start_command(command, "schemathesis").end().await;
    let holds = ended.code == Some(0) && ended.out.contains("No issues found");
    assert!(holds, "{}\n{}", ended.out, ended.err);
}

#[tokio::test]
async fn the_gateway_does_what_its_document_says() {
    let place = Place::new("gateway-document", 2).await;
    let gateway = place.service("gateway").await;
    holds_its_document(&place, &gateway.http, "200").await;
    let log = gateway.replica.stop().await.expect(0).err;
    assert!(!log.contains("ERROR"), "{log}");
    // Whatever the gateway accepts, the ledger understands.
    let ledger = place.ledger(1).await;
    place.drained().await;
    let posted = "select count(*) from reports.transactions";
    let posted = place.number(posted).await;
    assert!(posted > 20, "{posted} are enough to tell");
    let strange = "select reason, detail from reports.rejections where reason <> 'id_conflict'
                   union all select reason, detail from reports.parked";
    assert_eq!(place.rows(strange).await, [""; 0]);
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn the_query_api_does_what_its_document_says() {
    let place = Place::new("query-document", 2).await;
    let query = place.service("query").await;
    let ledger = place.ledger(1).await;
    let project = place.replica(place.project_command()).await;
    something_of_everything(&place).await;
    place.drained().await;
    place.folded().await;
    for report in ["transactions", "rejections", "parked", "flows"] {
        let path = format!("/v1/reports/{report}");
        let rows = query.http.get(&path).await.expect(200).json();
        assert_ne!(rows["rows"], Value::Array(Vec::new()), "{report}");
    }
    holds_its_document(&place, &query.http, "40").await;
    for replica in [query.replica, project, ledger] {
        let log = replica.stop().await.expect(0).err;
        assert!(!log.contains("ERROR"), "{log}");
    }
}

/// Posted with and without what may be left out, refused, rejected and parked.
async fn something_of_everything(place: &Place) {
    let gateway = place.service("gateway").await;
    let post = async |transaction: Value| {
        let answer = gateway.http.post(JSON, transaction.to_string()).await;
        answer.expect(202);
    };
    for number in 0..20 {
        post(json(&transfer(number, "a", "b", 1))).await;
    }
    let mut full = json(&transfer(20, "b", "external:out", 2));
    full["reference"] = "invoice 7".into();
    full["metadata"] = serde_json::json!({"order": "4711", "": "ä"});
    post(full).await;
    post(json(&transfer(0, "a", "b", 2))).await;
    place
        .run(&["accounts", "set", "poor", "--overdraft-limit", "0"])
        .await
        .expect(0);
    post(json(&transfer(21, "poor", "b", 1))).await;
    let garbage = RawRecord {
        key: Some(b"carol"),
        payload: Some(b"\xff\x00"),
        headers: &[("x", b"\xfe")],
        partition: None,
    };
    publish_raw(&place.publisher().await, garbage).await;
    gateway.replica.stop().await.expect(0);
}
