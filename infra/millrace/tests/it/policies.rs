//! What accounts may do, changed while the ledger runs.

use millrace_publisher::Publisher;
use millrace_rules::Currency;
use millrace_schemas::Transaction;

use crate::oracle::{acknowledged, assert_nothing_is_lost};
use crate::place::Place;
use crate::process::until;
use crate::records::{publish, transfer};

/// Publishes one transaction at a time and asks what became of it.
struct Asking<'a> {
    place: &'a Place,
    publisher: Publisher,
    next: u128,
}

impl Asking<'_> {
    /// The verdict on moving `amount` of `currency`.
    async fn moving(&mut self, debit: &str, credit: &str, amount: i64, currency: &str) -> String {
        self.next += 1;
        let transaction = Transaction {
            currency: Currency::parse(currency).unwrap(),
            ..transfer(self.next, debit, credit, amount)
        };
        publish(&self.publisher, [&transaction]).await;
        self.place.drained().await;
        let verdict = "select name from millrace.ledger l
                       join millrace.reasons r on r.kind = 'verdict' and r.code = l.verdict
                       where id = $1";
        sqlx::query_scalar(verdict)
            .bind(transaction.id)
            .fetch_one(&mut self.place.connect().await)
            .await
            .unwrap()
    }

    async fn debit(&mut self, account: &str, amount: i64, currency: &str) -> String {
        self.moving(account, "external:out", amount, currency).await
    }

    async fn credit(&mut self, account: &str, amount: i64, currency: &str) -> String {
        self.moving("external:in", account, amount, currency).await
    }
}

/// `millrace accounts ..` must succeed.
async fn accounts(place: &Place, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["accounts"].iter().chain(arguments).copied().collect();
    place.run(&arguments).await.expect(0).out
}

#[tokio::test]
async fn a_status_counts_from_the_next_record_on() {
    let place = Place::new("status", 3).await;
    let ledger = place.ledger(2).await;
    let mut ask = Asking {
        place: &place,
        publisher: place.publisher().await,
        next: 0,
    };
    assert_eq!(ask.debit("a", 5, "EUR").await, "posted");
    accounts(&place, &["set", "a", "--status", "frozen"]).await;
    assert_eq!(ask.debit("a", 5, "EUR").await, "debit_account_frozen");
    assert_eq!(ask.credit("a", 5, "EUR").await, "posted");
    assert_eq!(ask.moving("other", "a", 5, "EUR").await, "posted");
    accounts(&place, &["set", "a", "--status", "closed"]).await;
    assert_eq!(ask.debit("a", 5, "EUR").await, "debit_account_closed");
    assert_eq!(ask.credit("a", 5, "EUR").await, "credit_account_closed");
    // Also where the partition is another account's.
    for other in ["b", "c", "d", "e"] {
        assert_eq!(
            ask.moving(other, "a", 5, "EUR").await,
            "credit_account_closed"
        );
    }
    assert!(accounts(&place, &["show", "a"]).await.contains("closed"));
    accounts(&place, &["set", "a", "--status", "open"]).await;
    assert_eq!(ask.debit("a", 5, "EUR").await, "posted");
    assert_eq!(ask.credit("a", 5, "EUR").await, "posted");
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn limits_are_per_account_and_currency_before_the_default() {
    let place = Place::new("limits", 3).await;
    let ledger = place.ledger(2).await;
    let mut ask = Asking {
        place: &place,
        publisher: place.publisher().await,
        next: 0,
    };
    let (posted, short) = ("posted", "insufficient_funds");
    accounts(
        &place,
        &["set", "a", "--currency", "EUR", "--overdraft-limit", "50"],
    )
    .await;
    assert_eq!(ask.debit("a", 51, "EUR").await, short);
    assert_eq!(ask.debit("a", 50, "EUR").await, posted);
    assert_eq!(ask.debit("a", 1, "EUR").await, short);
    assert_eq!(ask.debit("a", 1_000, "USD").await, posted);
    assert_eq!(ask.credit("a", 7, "EUR").await, posted);
    assert_eq!(ask.debit("a", 8, "EUR").await, short);
    assert_eq!(ask.debit("a", 7, "EUR").await, posted);
    // For all currencies without one of their own.
    accounts(&place, &["set", "a", "--overdraft-limit", "1010"]).await;
    assert_eq!(ask.debit("a", 11, "USD").await, short);
    assert_eq!(ask.debit("a", 10, "USD").await, posted);
    assert_eq!(ask.debit("a", 1, "EUR").await, short);
    // The default is for those that have none.
    assert_eq!(ask.debit("b", 5, "EUR").await, posted);
    accounts(&place, &["default", "--overdraft-limit", "5"]).await;
    assert_eq!(ask.debit("b", 1, "EUR").await, short);
    assert_eq!(ask.debit("a", 1, "EUR").await, short);
    assert_eq!(ask.debit("a", 1_010, "JPY").await, posted);
    accounts(
        &place,
        &[
            "default",
            "--currency",
            "JPY",
            "--overdraft-limit",
            "unlimited",
        ],
    )
    .await;
    assert_eq!(ask.debit("b", 9_000, "JPY").await, posted);
    assert_eq!(ask.debit("b", 1, "EUR").await, short);
    accounts(&place, &["set", "b", "--overdraft-limit", "unlimited"]).await;
    assert_eq!(ask.debit("b", 9_000, "EUR").await, posted);
    // What moves while there is no limit counts when there is one again.
    accounts(&place, &["set", "d", "--overdraft-limit", "0"]).await;
    assert_eq!(ask.credit("d", 100, "EUR").await, posted);
    assert_eq!(ask.debit("d", 10, "EUR").await, posted);
    accounts(&place, &["set", "d", "--overdraft-limit", "unlimited"]).await;
    assert_eq!(ask.debit("d", 80, "EUR").await, posted);
    accounts(&place, &["set", "d", "--overdraft-limit", "0"]).await;
    assert_eq!(ask.debit("d", 11, "EUR").await, short);
    assert_eq!(ask.debit("d", 10, "EUR").await, posted);
    // The outside world is never limited.
    assert_eq!(ask.credit("c", 1_000_000, "EUR").await, posted);
    assert_eq!(
        ask.moving("external:in", "external:out", 1_000, "EUR")
            .await,
        posted
    );
    let refused = place
        .run(&["accounts", "set", "external:in", "--overdraft-limit", "5"])
        .await;
    refused
        .expect(64)
        .names(&["external:in", "overdraft limit"]);
    place.verify().await;
    ledger.stop().await.expect(0);
}

#[tokio::test]
async fn no_account_is_overdrawn_under_load_on_two_replicas() {
    const COUNT: usize = 12_000;
    let place = Place::new("overdrawn", 6).await;
    accounts(&place, &["default", "--overdraft-limit", "0"]).await;
    let replicas = [place.ledger(2).await, place.ledger(2).await];
    let count = COUNT.to_string();
    let load = place.start(&[
        "generate",
        "--count",
        &count,
        "--rate",
        "1500",
        "--accounts",
        "60",
        "--skew",
        "zipf:0.8",
        "--external-share",
        "0.1",
        "--seed",
        "9",
    ]);
    let least = "select coalesce(min(balance), 0)::bigint from reports.balances
                 where account not like 'external:%'";
    let decided = "select coalesce(sum(posted + rejected), 0)::bigint from millrace.batches";
    let wanted = i64::try_from(COUNT).unwrap();
    until("all are decided", async || {
        assert!(place.number(least).await >= 0, "an account is overdrawn");
        (place.number(decided).await == wanted).then_some(())
    })
    .await;
    assert_eq!(acknowledged(&load.end().await), COUNT);
    assert!(place.number(least).await >= 0);
    for verdict in ["posted", "rejected"] {
        let some = format!("select sum({verdict})::bigint from millrace.batches");
        assert!(place.number(&some).await > wanted / 20, "few are {verdict}");
    }
    // Every rejected debit was more than its account could have had, whatever had arrived of its credits.
    let groundless = "select count(*) from millrace.ledger r where verdict <> 0 and amount <= (
            select coalesce(sum(amount), 0) from millrace.ledger c
            where c.verdict = 0 and c.credit_account = r.debit_account and c.partition = r.partition
                and c.seq < r.seq
        ) - (
            select coalesce(sum(amount), 0) from millrace.ledger d
            where d.verdict = 0 and d.debit_account = r.debit_account and d.seq < r.seq
        )";
    assert_eq!(place.number(groundless).await, 0);
    assert_nothing_is_lost(&place).await;
    place.verify().await;
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}
