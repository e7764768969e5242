//! The main job: a bank's file through Kafka into Postgres, against an independent computation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use sqlx::PgConnection;

use crate::oracle::figures;
use crate::place::Place;
use crate::process::Ended;
use crate::servers::{python, repository};

/// Good rows of the file.
pub const ROWS: i64 = 49_102;

/// What `infra/test/berka_oracle.py` prints.
#[derive(Debug, Deserialize)]
struct Oracle {
    #[serde(default)]
    rows: i64,
    #[serde(default)]
    broken_lines: Vec<u64>,
    accounts: BTreeMap<String, Account>,
    /// "YYYY-MM-DD kind".
    #[serde(default)]
    daily: BTreeMap<String, Daily>,
    #[serde(default)]
    refused: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Account {
    credits: i64,
    withdrawals: i64,
    count: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Daily {
    count: i64,
    amount: i64,
}

fn file() -> PathBuf {
    repository().join("producers/importer/tests/data/berka-transactions.csv.gz")
}

fn oracle(arguments: &[&str]) -> Oracle {
    let ended = python()
        .arg(repository().join("infra/test/berka_oracle.py"))
        .arg(file())
        .args(arguments)
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// What imports the file. It ends with 2: every good row is acknowledged, one is refused.
pub fn import_arguments() -> [String; 4] {
    let map = repository().join("producers/importer/maps/berka.toml");
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    ["import".into(), text(file()), "--map".into(), text(map)]
}

async fn import(place: &Place) -> Ended {
    let arguments = import_arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    place.run(&arguments).await.expect(2)
}

/// The bank's figures in the database are those of the independent computation.
pub async fn assert_sums(database: &mut PgConnection) {
    let oracle = oracle(&[]);
    assert_eq!(oracle.rows, ROWS);
    let posted = "select count(*) from reports.transactions where currency = 'CZK'";
    let posted: i64 = sqlx::query_scalar(posted)
        .fetch_one(&mut *database)
        .await
        .unwrap();
    assert_eq!(posted, ROWS);
    assert_eq!(oracle.accounts.len(), 1_229);
    assert_eq!(accounts(database).await, oracle.accounts);
    assert_eq!(daily(database).await, oracle.daily);
}

/// Every account of the bank as the database shows it.
async fn accounts(database: &mut PgConnection) -> BTreeMap<String, Account> {
    let query = "select account, credits::bigint, debits::bigint, transactions::bigint
                 from reports.balances where account not like 'external:%' and currency = 'CZK'";
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as(query).fetch_all(database).await.unwrap();
    let without_prefix = |account: String| account.strip_prefix("berka:").unwrap().to_owned();
    rows.into_iter()
        .map(|(account, credits, withdrawals, count)| {
            let sums = Account {
                credits,
                withdrawals,
                count,
            };
            (without_prefix(account), sums)
        })
        .collect()
}

#[tokio::test]
async fn the_banks_file_is_posted_exactly_once() {
    let place = Place::new("berka", 12).await;
    let replicas = [place.ledger(1).await, place.ledger(1).await];
    let project = place.replica(place.project_command()).await;
    let oracle = oracle(&[]);
    let ended = import(&place).await;
    assert_eq!(oracle.broken_lines.len(), 1);
    let broken = format!("line {}:", oracle.broken_lines[0]);
    assert!(ended.out.contains(&broken), "no {broken:?} in {ended:?}");
    place.drained().await;

    assert_sums(&mut place.connect().await).await;
    place.folded().await;
    place.verify().await;
    let before = figures(&place).await;

    import(&place).await;
    place.drained().await;
    let duplicates = "select sum(duplicate)::bigint from millrace.batches";
    assert_eq!(place.number(duplicates).await, ROWS);
    place.folded().await;
    assert_eq!(figures(&place).await, before, "not one figure changed");
    place.verify().await;
    project.stop().await.expect(0);
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}

/// The daily totals as the database shows them.
async fn daily(database: &mut PgConnection) -> BTreeMap<String, Daily> {
    let query = "select day::text || ' ' || kind, transactions::bigint, amount::bigint from reports.daily_totals
                 where currency = 'CZK'";
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(query).fetch_all(database).await.unwrap();
    rows.into_iter()
        .map(|(day, count, amount)| (day, Daily { count, amount }))
        .collect()
}

#[tokio::test]
async fn with_a_limit_of_zero_exactly_the_uncovered_withdrawals_are_refused() {
    let place = Place::new("berka-limit", 12).await;
    place
        .run(&["accounts", "default", "--overdraft-limit", "0"])
        .await
        .expect(0);
    let replicas = [place.ledger(1).await, place.ledger(1).await];
    import(&place).await;
    place.drained().await;

    let oracle = oracle(&["--overdraft", "0"]);
    let wanted: BTreeSet<_> = oracle
        .refused
        .iter()
        .map(|trans_id| millrace_schemas::ids::derive("berka", &[trans_id]).to_string())
        .collect();
    assert!(!wanted.is_empty());
    let rejections = "select id::text, reason from reports.rejections";
    let rejected: Vec<(String, String)> = sqlx::query_as(rejections)
        .fetch_all(&mut place.connect().await)
        .await
        .unwrap();
    assert_eq!(rejected.len(), oracle.refused.len());
    assert!(
        rejected
            .iter()
            .all(|(_, reason)| reason == "insufficient_funds")
    );
    let found: BTreeSet<_> = rejected.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, wanted);
    // Accounts of which nothing was posted have no balance.
    let posted = oracle
        .accounts
        .into_iter()
        .filter(|(_, account)| account.count > 0);
    assert_eq!(accounts(&mut place.connect().await).await, posted.collect());
    let least =
        "select min(balance)::bigint from reports.balances where account not like 'external:%'";
    assert!(place.number(least).await >= 0);
    place.verify().await;
    for replica in replicas {
        replica.stop().await.expect(0);
    }
}
