//! What the database must hold, computed from the topic.

use std::collections::{BTreeMap, BTreeSet};

use millrace_schemas::{ContentType, decode};
use uuid::Uuid;

use crate::log;
use crate::place::Place;
use crate::process::Ended;

/// A row of the ledger, as far as the topic says it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Row {
    partition: i32,
    seq: i64,
    log_offset: i64,
    verdict: i16,
    id: Uuid,
    debit_account: String,
    credit_account: String,
    amount: i64,
    currency: String,
}

/// Debits, credits and count of (account, currency).
type Balances = BTreeMap<(String, String), (i128, i128, i64)>;

/// Every record of the topic is posted, once, in the order of the log, and balances are their sums.
/// Holds where nothing is limited and nothing is sent twice. Gives the number of records.
pub async fn assert_all_posted_in_order(place: &Place) -> usize {
    let records = log::read(place.brokers(), place.topic(), place.partitions);
    let wanted = rows(&records);
    let query =
        "select partition, seq, log_offset, verdict, id, debit_account, credit_account, amount,
                     currency
                 from millrace.ledger order by partition, seq";
    let found: Vec<Row> = sqlx::query_as(query)
        .fetch_all(&mut place.connect().await)
        .await
        .unwrap();
    // Not one assertion over all: its message would be everything.
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!(wanted, found, "the first row that differs (topic, ledger)");
    }
    assert_eq!(wanted.len(), found.len(), "records and rows");
    assert_balances(place, &balances(&wanted)).await;
    assert_nothing_is_lost(place).await;
    place.verify().await;
    wanted.len()
}

/// The rows that records become when all are posted: seq counts within the partition.
fn rows(records: &[log::Record]) -> Vec<Row> {
    let mut seqs = BTreeMap::<i32, i64>::new();
    records
        .iter()
        .map(|record| {
            let content_type = if record.is_json {
                ContentType::Json
            } else {
                ContentType::Avro
            };
            let wire = decode(record.value.as_deref().unwrap(), content_type).unwrap();
            let next_seq = seqs.entry(record.partition).or_default();
            *next_seq += 1;
            Row {
                partition: record.partition,
                seq: *next_seq - 1,
                log_offset: record.offset,
                verdict: 0,
                id: wire.id.parse().unwrap(),
                debit_account: wire.debit_account.into_owned(),
                credit_account: wire.credit_account.into_owned(),
                amount: wire.amount,
                currency: wire.currency.into_owned(),
            }
        })
        .collect()
}

fn balances(rows: &[Row]) -> Balances {
    let mut balances = Balances::new();
    for row in rows {
        let amount = i128::from(row.amount);
        for (account, debit, credit) in [
            (&row.debit_account, amount, 0),
            (&row.credit_account, 0, amount),
        ] {
            let key = (account.clone(), row.currency.clone());
            let (debits, credits, count) = balances.entry(key).or_default();
            (*debits, *credits, *count) = (*debits + debit, *credits + credit, *count + 1);
        }
    }
    balances
}

/// The balances are the sums over the topic's transactions, each counted once however often it was sent. Holds where
/// nothing is limited. Gives how many transactions there are.
pub async fn assert_balances_of_topic(place: &Place) -> usize {
    let records = log::read(place.brokers(), place.topic(), place.partitions);
    let (mut rows, mut seen) = (rows(&records), BTreeSet::new());
    rows.retain(|row| seen.insert(row.id));
    assert_balances(place, &balances(&rows)).await;
    rows.len()
}

async fn assert_balances(place: &Place, wanted: &Balances) {
    let query = "select account, currency, debits::text, credits::text, transactions::bigint
                 from reports.balances";
    let rows: Vec<(String, String, String, String, i64)> = sqlx::query_as(query)
        .fetch_all(&mut place.connect().await)
        .await
        .unwrap();
    let number = |text: String| text.parse::<i128>().unwrap();
    let found: Balances = rows
        .into_iter()
        .map(|(account, currency, debits, credits, count)| {
            let sums = (number(debits), number(credits), count);
            ((account, currency), sums)
        })
        .collect();
    for (account, sums) in wanted {
        assert_eq!(Some(sums), found.get(account), "{account:?}");
    }
    assert_eq!(wanted.len(), found.len(), "accounts");
}

/// How many records `millrace generate` says are acknowledged; none may have failed.
pub fn acknowledged(ended: &Ended) -> usize {
    let (count, rest) = ended.out.split_once(" of ").unwrap();
    assert!(rest.contains(", 0 failed"), "{ended:?}");
    count.parse().unwrap()
}

/// Every offset of the log has exactly one verdict or is a hole.
pub async fn assert_nothing_is_lost(place: &Place) {
    let broken = place
        .rows("select * from reports.conservation where not holds")
        .await;
    assert_eq!(broken, [""; 0]);
    let ends = log::ends(place.brokers(), place.topic(), place.partitions).await;
    let counted = "select sum(records + skipped)::bigint from reports.conservation";
    assert_eq!(place.number(counted).await, ends.iter().sum::<i64>());
}

/// Every figure that analysts see, line by line.
pub async fn figures(place: &Place) -> Vec<String> {
    let mut figures = Vec::new();
    for view in [
        "balances",
        "daily_totals",
        "account_days",
        "flows",
        "rejections",
    ] {
        let rows = place.rows(&format!("select * from reports.{view}")).await;
        figures.extend(rows.into_iter().map(|row| format!("{view} {row}")));
    }
    let transactions =
        "select id, amount, occurred_at, recorded_at, partition, seq from reports.transactions";
    figures.extend(place.rows(transactions).await);
    figures.sort_unstable();
    figures
}
