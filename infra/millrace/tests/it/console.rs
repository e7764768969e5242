//! The console in a real headless Chromium: `infra/test/browser/console.test.mjs` looks at every page.

use std::process::Command;
use std::time::Duration;

use millrace_publisher::RawRecord;
use millrace_schemas::Transaction;
use millrace_schemas::wire::Metadata;
use uuid::Uuid;

use crate::place::Place;
use crate::records::{publish, publish_raw, transfer};
use crate::servers::repository;

/// Two hundred pages on two cores that other tests use too.
const PATIENCE: Duration = Duration::from_mins(5);

/// The account that the pages are about.
const ACCOUNT: &str = "browser:alice";

#[tokio::test]
async fn every_page_is_right_in_a_browser() {
    let place = Place::new("console", 3).await;
    let _ledger = place.ledger(1).await;
    let _project = place.replica(place.project_command()).await;
    let gateway = place.service("gateway").await;
    let query = place.service("query").await;
    let (posted, refused) = fill(&place).await;
    place.drained().await;
    place.folded().await;

    let mut command = Command::new("node");
    command
        .args(["--test", "--test-reporter=spec"])
        .arg(repository().join("infra/test/browser/console.test.mjs"))
        .env("MILLRACE_CONSOLE", format!("http://{}", query.http.address))
        .env(
            "MILLRACE_GATEWAY",
            format!("http://{}", gateway.http.address),
        )
        .env("MILLRACE_POSTED", posted.to_string())
        .env("MILLRACE_REFUSED", refused.to_string());
    let browser = place.start_command(command, "browser");
    let ended = browser.end_within(PATIENCE).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
}

/// Something on every page; the ids of a posted transaction and of one with a refused record beside it.
async fn fill(place: &Place) -> (Uuid, Uuid) {
    let unlucky = ["accounts", "set", "browser:broke", "--overdraft-limit", "0"];
    place.run(&unlucky).await.expect(0);
    let publisher = place.publisher().await;
    let mut transactions: Vec<_> = (1..=60).map(day).collect();
    transactions.push(transfer(99, ACCOUNT, "browser:broke", 1));
    transactions.push(transfer(100, "browser:broke", ACCOUNT, 5));
    transactions.push(transfer(2, "external:bank", ACCOUNT, 1));
    let metadata = Metadata::new(vec![("terminal".into(), "<b>17</b>".into())]);
    transactions[0].metadata = metadata.unwrap();
    transactions[0].reference = "Invoice 2026/01".into();
    publish(&publisher, &transactions).await;
    let poison = RawRecord {
        key: Some(b"browser:poison"),
        payload: Some(b"\xde\xad\xbe\xef<script>alert(1)</script>"),
        headers: &[("trace", b"\x00\xff"), ("content-type", b"text/html")],
        partition: None,
    };
    publish_raw(&publisher, poison).await;
    (transactions[0].id, transactions[1].id)
}

/// One a day, in or out.
fn day(number: u128) -> Transaction<'static> {
    let (debit, credit) = if number.is_multiple_of(3) {
        (ACCOUNT, "browser:cafe")
    } else {
        ("external:bank", ACCOUNT)
    };
    let days = i64::try_from(number).unwrap();
    let mut transaction = transfer(number, debit, credit, 1_000 * days);
    transaction.occurred_at += days * 86_400_000_000;
    transaction
}
