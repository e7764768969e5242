//! An account's transactions are found along the threads through the ledger: all of them, each once, the newest
//! first, whatever is posted meanwhile.

use std::collections::BTreeSet;

use millrace_rules::Currency;
use millrace_schemas::Transaction;
use serde_json::Value;

use crate::http::Http;
use crate::place::Place;
use crate::records::{account_in, publish, transfer};
use crate::servers::repository;

const PARTITIONS: i32 = 4;

/// Pages of this size, so that some end inside a batch and some between partitions.
const LIMIT: usize = 7;

/// 200 transactions of `hub`, in every partition, in two currencies, on both sides, and some of others.
fn transactions(first: u128) -> Vec<Transaction<'static>> {
    let others: Vec<_> = (0..PARTITIONS)
        .map(|partition| account_in(partition, PARTITIONS, "other"))
        .collect();
    let one = |number: u128| {
        let other = &others[usize::try_from(number % 4).unwrap()];
        let (debit, credit) = match number % 5 {
            0 => ("hub", other.as_str()),
            4 => ("elsewhere", other.as_str()),
            _ => (other.as_str(), "hub"),
        };
        let mut transaction = transfer(first + number, debit, credit, 1);
        if number.is_multiple_of(3) {
            transaction.currency = Currency::parse("CHF").unwrap();
        }
        transaction
    };
    (0..250).map(one).collect()
}

/// `partition.seq` of every transaction on the pages, in their order, and the cursors between them.
async fn pages(query: &Http, from: Option<String>) -> (Vec<String>, Vec<String>) {
    let mut places = Vec::new();
    let mut cursors = Vec::new();
    let mut cursor = from;
    loop {
        let after = cursor
            .map(|cursor| format!("&cursor={cursor}"))
            .unwrap_or_default();
        let path = format!("/v1/accounts/hub/transactions?limit={LIMIT}{after}");
        let page = query.get(&path).await.expect(200).json();
        let rows = page["transactions"].as_array().unwrap();
        assert!(rows.len() <= LIMIT);
        places.extend(rows.iter().map(place_of));
        let Some(next) = page["next"].as_str() else {
            return (places, cursors);
        };
        assert_eq!(rows.len(), LIMIT, "only the last page is not full");
        cursors.push(next.to_owned());
        cursor = Some(next.to_owned());
    }
}

fn place_of(row: &Value) -> String {
    format!("{}.{}", row["partition"], row["seq"])
}

/// By a scan of the ledger.
async fn scanned(place: &Place, condition: &str) -> Vec<String> {
    let query = format!(
        "select concat(partition, '.', seq) from millrace.ledger
         where verdict = 0 and 'hub' in (debit_account, credit_account) and {condition}
         order by recorded_at desc, partition desc, seq desc"
    );
    texts(place, &query).await
}

/// Rows of one column.
async fn texts(place: &Place, query: &str) -> Vec<String> {
    let rows = place.rows(query).await.into_iter();
    rows.map(|row| row.trim_matches(['(', ')']).to_owned())
        .collect()
}

#[tokio::test]
async fn pages_of_an_account_are_all_its_transactions_newest_first() {
    let place = Place::new("threads", PARTITIONS).await;
    let publisher = place.publisher().await;
    // Several batches per partition.
    let ledger = place.ledger(1).await;
    for batch in transactions(0).chunks(60) {
        publish(&publisher, batch).await;
        place.drained().await;
    }
    let query = place.service("query").await;
    let expected = scanned(&place, "true").await;
    assert_eq!(expected.len(), 200);
    let (shown, cursors) = pages(&query.http, None).await;
    assert_eq!(shown, expected);

    // What is posted later is on no page after a cursor.
    publish(&publisher, &transactions(1_000)).await;
    place.drained().await;
    let (rest, _) = pages(&query.http, Some(cursors[3].clone())).await;
    assert_eq!(rest, expected[4 * LIMIT..]);

    // The same rows through the view, and through the report, whose order is another one.
    let viewed =
        "select concat(partition, '.', seq) from reports.account_transactions where account = 'hub'
         order by recorded_at desc, partition desc, seq desc";
    assert_eq!(texts(&place, viewed).await, scanned(&place, "true").await);
    for (filters, condition) in [
        ("account=hub", "true"),
        ("debit_account=hub", "debit_account = 'hub'"),
        (
            "credit_account=hub&currency=CHF",
            "credit_account = 'hub' and currency = 'CHF'",
        ),
        ("account=hub&partition=2", "partition = 2"),
    ] {
        let path = format!("/v1/reports/transactions?limit=1000&{filters}");
        let report = query.http.get(&path).await.expect(200).json();
        let rows = report["rows"].as_array().unwrap();
        let shown: BTreeSet<_> = rows.iter().map(place_of).collect();
        assert_eq!(shown.len(), rows.len());
        let expected: BTreeSet<_> = scanned(&place, condition).await.into_iter().collect();
        assert_eq!(shown, expected, "{filters}");
    }
    ledger.stop().await.expect(0);
    place.verify().await;
}

#[tokio::test]
async fn sums_beyond_64_bits_in_one_batch_are_added_up_and_threaded() {
    let place = Place::new("large", 1).await;
    let publisher = place.publisher().await;
    let largest = 1_000_000_000_000_000;
    let count = 10_000;
    let transactions: Vec<_> = (0..count)
        .map(|number| transfer(number, "external:mint", "vault", largest))
        .collect();
    publish(&publisher, &transactions).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    ledger.stop().await.expect(0);
    let sums = "select debits, credits, transactions from reports.balances order by account";
    assert_eq!(
        place.rows(sums).await,
        [
            "(10000000000000000000,0,10000)",
            "(0,10000000000000000000,10000)"
        ]
    );
    let rows = "select count(*) from reports.account_transactions where account = 'vault'";
    assert_eq!(place.number(rows).await, 10_000);
    place.verify().await;
}

/// A database of before there were threads is threaded by `migrate`.
#[tokio::test]
async fn an_older_ledger_is_threaded_when_it_is_migrated() {
    let place = Place::new("older", PARTITIONS).await;
    let publisher = place.publisher().await;
    publish(&publisher, &transactions(0)).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    ledger.stop().await.expect(0);
    let threads = "select concat_ws(' ', partition, seq, debit_previous, credit_previous) from millrace.ledger
         order by partition, seq";
    let before = place.rows(threads).await;
    place
        .execute(
            "drop view reports.account_transactions, reports.account_partitions;
             drop view reports.transactions cascade;
             alter table millrace.ledger drop column debit_previous, drop column credit_previous;
             alter table millrace.balances drop column last_seq;
             create index ledger_debit_account on millrace.ledger (debit_account);
             create index ledger_credit_account on millrace.ledger (credit_account);
             create view reports.transactions as
             select l.id, l.kind, l.debit_account, l.credit_account, l.amount, l.currency, c.exponent,
                 l.occurred_at, l.recorded_at, l.reference, l.source, l.metadata, l.partition, l.seq, l.log_offset
             from millrace.ledger l
             left join millrace.currencies c on c.currency = l.currency
             where l.verdict = 0;
             alter view reports.transactions owner to millrace_migrator",
        )
        .await;
    let migration = repository().join("consumers/ledger/migrations/0006_threads.sql");
    let migration = std::fs::read_to_string(migration).unwrap();
    place.execute(&format!("begin; {migration}; commit")).await;
    assert_eq!(place.rows(threads).await, before);
    place.verify().await;
}
