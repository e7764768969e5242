//! The Berka file: every good row, the broken one by its line, sums as an independent script has them.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::refused::Why;
use crate::{End, Exit};

fn crate_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn data() -> PathBuf {
    crate_path("tests/data/berka-transactions.csv.gz")
}

fn options(setup: &Setup, input: &Path) -> Options {
    Options {
        map: Some(crate_path("maps/berka.toml")),
        ..setup.options(input)
    }
}

/// What the script computes from the raw rows.
fn oracle() -> Value {
    let output = Command::new("python3")
        .arg(crate_path("../../infra/test/berka_oracle.py"))
        .arg(data())
        .output()
        .expect("python3 is needed for this test");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn one_row_is_refused_and_named_by_its_line() {
    let setup = Setup::new();
    let summary = dry_run(&options(&setup, &data())).await;
    assert_eq!(summary.end, End::Complete);
    assert_eq!(
        (summary.rows, summary.acknowledged, summary.refused),
        (49_103, 49_102, 1)
    );
    assert_eq!(summary.exit(), Exit::RowsRefused);
    let [refused] = summary.first_refused.as_slice() else {
        panic!("{summary}");
    };
    assert_eq!((refused.line, refused.why), (49_104, Why::Quote));
    assert_eq!(
        setup.refused(),
        "line,reason,detail,raw\n49104,quote,the quote that opens column 4 is not closed before the \
         file ends,\"3526882;11021;940331;\"\"PRIJE\"\n"
    );
}

#[tokio::test]
async fn a_file_that_is_cut_off_while_compressed_gives_its_good_rows() {
    let setup = Setup::new();
    let bytes = std::fs::read(data()).unwrap();
    let cut = setup.write("cut.csv.gz", &bytes[..bytes.len() / 2]);
    let summary = dry_run(&options(&setup, &cut)).await;
    let End::Broken(why) = &summary.end else {
        panic!("{summary}");
    };
    let expected = format!(
        "line {}: the compressed input is cut off here",
        summary.rows + 2
    );
    assert!(why.starts_with(&expected), "{why}");
    assert!(
        (20_000..30_000).contains(&summary.acknowledged),
        "{summary}"
    );
    assert_eq!((summary.refused, summary.exit()), (0, Exit::Incomplete));
}

#[test]
fn sums_are_those_of_the_raw_rows() {
    let setup = Setup::new();
    let transactions = transactions(&options(&setup, &data()));
    let oracle = oracle();
    assert_eq!(oracle["rows"], transactions.len());
    assert_eq!(oracle["broken_lines"], serde_json::json!([49_104]));

    let mut accounts: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    let mut daily: BTreeMap<String, [i64; 2]> = BTreeMap::new();
    for transaction in &transactions {
        let amount = transaction.amount.minor_units();
        let (debit, credit) = (&transaction.debit_account, &transaction.credit_account);
        let [account, credits, withdrawals] = if debit.is_external() {
            [credit.as_str(), "credits", ""]
        } else {
            assert!(credit.is_external());
            [debit.as_str(), "", "withdrawals"]
        };
        let sums = accounts
            .entry(account.strip_prefix("berka:").unwrap())
            .or_default();
        sums[0] += if credits.is_empty() { 0 } else { amount };
        sums[1] += if withdrawals.is_empty() { 0 } else { amount };
        sums[2] += 1;
        let time = Timestamp::from_microsecond(transaction.occurred_at).unwrap();
        let day = time.to_string().replace("T00:00:00Z", "");
        let total = daily
            .entry(format!("{day} {}", transaction.kind))
            .or_default();
        total[0] += 1;
        total[1] += amount;
    }

    let expected = oracle["accounts"].as_object().unwrap();
    assert_eq!((accounts.len(), expected.len()), (1_229, 1_229));
    for (account, [credits, withdrawals, count]) in accounts {
        let expected = &expected[account];
        assert_eq!(expected["credits"], credits, "{account}");
        assert_eq!(expected["withdrawals"], withdrawals, "{account}");
        assert_eq!(expected["count"], count, "{account}");
    }
    let expected = oracle["daily"].as_object().unwrap();
    assert_eq!(daily.len(), expected.len());
    for (key, [count, amount]) in daily {
        assert_eq!(expected[&key]["count"], count, "{key}");
        assert_eq!(expected[&key]["amount"], amount, "{key}");
    }
    let ids: HashSet<_> = transactions
        .iter()
        .map(|transaction| transaction.id)
        .collect();
    assert_eq!(ids.len(), transactions.len());
}

#[test]
fn rows_read_well() {
    let setup = Setup::new();
    let transactions = transactions(&options(&setup, &data()));
    let of = |trans_id: &str| {
        let id = millrace_schemas::ids::derive("berka", &[trans_id]);
        let found = transactions.iter().find(|transaction| transaction.id == id);
        millrace_schemas::codec::encode_json(found.unwrap())
    };
    let first = of("695247");
    for part in [
        r#""kind":"cash_credit""#,
        r#""debit_account":"external:berka:cash","credit_account":"berka:2378""#,
        r#""amount":70000,"currency":"CZK","occurred_at":"1993-01-01T00:00:00Z""#,
        r#""reference":"","source":"berka","metadata":{}"#,
    ] {
        assert!(first.contains(part), "{first}");
    }
    let of_kind = |kind: &str| transactions.iter().find(|t| t.kind == kind).unwrap();
    let transfer = of_kind("transfer_out");
    assert!(transfer.debit_account.as_str().starts_with("berka:"));
    assert!(
        transfer
            .credit_account
            .as_str()
            .starts_with("external:bank:")
    );
    let keys: Vec<_> = transfer
        .metadata
        .pairs()
        .iter()
        .map(|(key, _)| key.as_ref())
        .collect();
    assert!(keys.starts_with(&["account", "bank"]), "{keys:?}");
    assert_eq!(of_kind("interest").reference, "interest");
}
