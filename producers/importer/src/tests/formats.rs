//! Formats, compression, standard input, and what is wrong before the first row.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use apache_avro::types::Record;
use apache_avro::{Codec, Schema, Writer};
use millrace_schemas::codec::{SCHEMA, encode_json};

use super::*;
use crate::refused::{RefusedFile, Why};
use crate::{End, Exit, Format};

/// [`CSV`] as NDJSON.
fn ndjson() -> String {
    let setup = Setup::new();
    let csv = setup.write("in.csv", CSV);
    let transactions = transactions(&setup.csv_options(&csv));
    let lines = transactions
        .iter()
        .map(|transaction| encode_json(transaction) + "\n");
    lines.collect()
}

#[tokio::test]
async fn compression_is_told_by_the_name_or_the_first_bytes() {
    let setup = Setup::new();
    let zstd = zstd::encode_all(CSV.as_bytes(), 3).unwrap();
    let (head, tail) = CSV.split_at(40);
    let members = [gzip(head.as_bytes()), gzip(b""), gzip(tail.as_bytes())].concat();
    let frames = [head, tail].map(|part| zstd::encode_all(part.as_bytes(), 3).unwrap());
    for (name, bytes) in [
        ("in.csv", CSV.into()),
        ("in.CSV", CSV.replace('\n', "\r\n").into_bytes()),
        ("in.csv.gz", gzip(CSV.as_bytes())),
        ("members.csv.gz", members),
        ("in.csv.zst", zstd.clone()),
        ("frames.csv.zst", frames.concat()),
        ("gzip.csv", gzip(CSV.as_bytes())),
        ("zstd.csv", zstd),
    ] {
        let summary = dry_run(&setup.csv_options(&setup.write(name, bytes))).await;
        assert_eq!(
            (summary.acknowledged, summary.end.clone()),
            (3, End::Complete),
            "{name}"
        );
        assert_eq!(summary.exit(), Exit::Success);
        assert_eq!(summary.refused_file, None);
    }
    assert!(!setup.path("refused.csv").exists());
}

#[tokio::test]
async fn compressed_files_that_are_cut_off_or_damaged_say_so_after_the_good_rows() {
    let setup = Setup::new();
    let mut csv = String::from("no,day,amount\n");
    for i in 0..50_000 {
        let amount = 1 + i * 7919 % 100_003;
        writeln!(csv, "{i},2024-01-01,{amount}.{:02}", i % 100).unwrap();
    }
    csv.push_str("50000,2024-01-01,0.10\n");
    let gzipped = gzip(csv.as_bytes());
    let zstd = zstd::encode_all(csv.as_bytes(), 1).unwrap();
    let mut checksum = gzipped.clone();
    let at = checksum.len() - 8;
    checksum[at] ^= 1;
    let garbage = [gzipped.clone(), b"garbage at the end".to_vec()].concat();
    for (name, bytes, all) in [
        ("cut.csv.gz", &gzipped[..gzipped.len() / 2], false),
        ("trailer.csv.gz", &gzipped[..gzipped.len() - 4], true),
        ("checksum.csv.gz", &checksum[..], true),
        ("garbage.csv.gz", &garbage[..], true),
        ("cut.csv.zst", &zstd[..zstd.len() / 2], false),
        ("end.csv.zst", &zstd[..zstd.len() - 1], false),
    ] {
        let summary = dry_run(&setup.csv_options(&setup.write(name, bytes))).await;
        let End::Broken(why) = &summary.end else {
            panic!("{name}: {summary}");
        };
        assert!(
            why.starts_with(&format!("line {}: ", summary.rows + 2)),
            "{name}: {why}"
        );
        assert_eq!(summary.exit(), Exit::Incomplete, "{name}");
        assert_eq!(
            summary.refused, 0,
            "{name}: a row that is cut off is not guessed at"
        );
        let fits = if all {
            50_000..=50_001
        } else {
            10_000..=49_999
        };
        assert!(fits.contains(&summary.acknowledged), "{name}: {summary}");
    }
}

#[tokio::test]
async fn ndjson_lines_are_transactions_or_refused() {
    let setup = Setup::new();
    let json = ndjson();
    let lines: Vec<_> = json.lines().collect();
    let [a, b, c] = lines[..] else { panic!() };
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(300_000));
    let text = [
        a,
        "",
        &b.replace("200", "0"),
        "{\"id\":",
        "[]",
        &long,
        &b.replace("\"kind\"", "\"knd\""),
        &b.replace("200", "2.5"),
        &b.replace("\"EUR\"", "\"XXX\""),
        &c.replace("2024-01-03T00:00:00Z", "2024-01-03"),
        &format!("{b}\r"),
        c,
    ]
    .join("\n");
    let summary = dry_run(&setup.options(&setup.write("in.ndjson", &text))).await;
    let refused: Vec<_> = summary
        .first_refused
        .iter()
        .map(|row| (row.line, row.why.as_str()))
        .collect();
    assert_eq!(
        refused,
        [
            (3, "invalid_amount"),
            (4, "undecodable"),
            (5, "undecodable"),
            (6, "too_long"),
            (7, "undecodable"),
            (8, "invalid_amount"),
            (9, "invalid_currency"),
            (10, "invalid_occurred_at"),
        ]
    );
    assert_eq!(
        (summary.acknowledged, summary.end.clone()),
        (3, End::Complete)
    );
    assert_eq!(summary.exit(), Exit::RowsRefused);
    let mut written = csv::Reader::from_path(setup.path("refused.csv")).unwrap();
    let raw: Vec<_> = written
        .records()
        .map(|record| record.unwrap()[3].to_owned())
        .collect();
    assert_eq!(raw[1], "{\"id\":");
    assert_eq!(raw[3], long[..1024]);
}

#[test]
fn ndjson_and_csv_give_the_same_transactions() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", CSV);
    let json = setup.write("in.jsonl", ndjson());
    assert_eq!(
        transactions(&setup.options(&json)),
        transactions(&setup.csv_options(&csv))
    );
}

#[test]
fn avro_files_give_the_same_transactions() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", CSV);
    let expected = transactions(&setup.csv_options(&csv));
    let schema = Schema::parse_str(SCHEMA).unwrap();
    for codec in [
        Codec::Null,
        Codec::Deflate(apache_avro::DeflateSettings::default()),
    ] {
        let mut writer = Writer::with_codec(&schema, Vec::new(), codec);
        for transaction in &expected {
            writer.append(avro_record(transaction, &schema)).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let path = setup.write("in.avro", &bytes);
        assert_eq!(transactions(&setup.options(&path)), expected);
        let path = setup.write("in.avro.gz", gzip(&bytes));
        assert_eq!(transactions(&setup.options(&path)), expected);
    }
}

fn avro_record<'a>(transaction: &Transaction<'_>, schema: &'a Schema) -> Record<'a> {
    let wire = transaction.to_wire();
    let mut record = Record::new(schema).unwrap();
    record.put("id", transaction.id);
    record.put("kind", wire.kind.as_ref());
    record.put("debit_account", wire.debit_account.as_ref());
    record.put("credit_account", wire.credit_account.as_ref());
    record.put("amount", wire.amount);
    record.put("currency", wire.currency.as_ref());
    record.put(
        "occurred_at",
        apache_avro::types::Value::TimestampMicros(wire.occurred_at),
    );
    record.put("reference", wire.reference.as_ref());
    record.put("source", wire.source.as_ref());
    record.put(
        "metadata",
        std::collections::HashMap::<String, String>::new(),
    );
    record
}

#[tokio::test]
async fn avro_files_are_counted_in_records() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", CSV);
    let good = transactions(&setup.csv_options(&csv));
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::new(&schema, Vec::new());
    writer.append(avro_record(&good[0], &schema)).unwrap();
    let mut bad = avro_record(&good[1], &schema);
    bad.put("amount", 0_i64);
    writer.append(bad).unwrap();
    writer.append(avro_record(&good[2], &schema)).unwrap();
    let bytes = writer.into_inner().unwrap();

    let summary = dry_run(&setup.options(&setup.write("in.avro", &bytes))).await;
    assert_eq!((summary.acknowledged, summary.refused), (2, 1), "{summary}");
    assert!(
        summary.to_string().contains("  record 2: invalid_amount: "),
        "{summary}"
    );

    let cut = setup.write("cut.avro", &bytes[..bytes.len() - 40]);
    let summary = dry_run(&setup.options(&cut)).await;
    assert!(
        matches!(&summary.end, End::Broken(why) if why.starts_with("record ")),
        "{summary}"
    );
    let text = setup.write("text.avro", "not avro");
    assert!(
        error(&setup.options(&text))
            .to_string()
            .contains("not an avro object container")
    );

    // The same numbers in another unit would be other times.
    let millis = SCHEMA.replace("timestamp-micros", "timestamp-millis");
    assert_ne!(millis, SCHEMA);
    let schema = Schema::parse_str(&millis).unwrap();
    let file = Writer::new(&schema, Vec::new()).into_inner().unwrap();
    let problem = error(&setup.options(&setup.write("millis.avro", file))).to_string();
    assert!(problem.contains("occurred_at"), "{problem}");
}

#[tokio::test]
async fn csv_without_a_header_takes_its_columns_from_the_mapping() {
    let setup = Setup::new();
    let (_, rows) = CSV.split_once('\n').unwrap();
    let input = setup.write("in.csv", rows);
    let file = "[file]\nheader = false\n";
    setup.write(
        "map.toml",
        format!("{MAP}{file}columns = [\"no\", \"day\", \"amount\"]\n"),
    );
    assert_eq!(dry_run(&setup.csv_options(&input)).await.acknowledged, 3);
    setup.write(
        "map.toml",
        format!("{MAP}{file}columns = [\"no\", \"amount\"]\n"),
    );
    let problem = error(&setup.csv_options(&input)).to_string();
    assert!(
        problem.contains("no column \"day\" in file.columns: no, amount"),
        "{problem}"
    );
    setup.write("map.toml", format!("{MAP}{file}"));
    let problem = error(&setup.csv_options(&input)).to_string();
    assert!(
        problem.contains("file.columns: without a header"),
        "{problem}"
    );
}

#[test]
fn what_is_wrong_before_the_first_row_is_said_at_once() {
    let setup = Setup::new();
    let with = |file: &str| format!("{MAP}[file]\n{file}\n");
    for (map, csv, expected) in [
        (MAP, "", "it is empty, without a header"),
        (MAP, "\n\n", "it is empty, without a header"),
        (
            MAP,
            "no;day;amount\n",
            "no column \"no\" in line 1: no;day;amount",
        ),
        (
            MAP,
            "\nno,day,amnt\n",
            "amount.value: no column \"amount\" in line 2: no, day, amnt",
        ),
        (
            MAP,
            "no,day,\"amount\n1,2,3\n",
            "line 1, the header: the quote that opens column 3",
        ),
        (
            MAP,
            "no,day,\"amount\"x\n",
            "line 1, the header: text after the closing quote",
        ),
        (&with("delimiter = \";;\""), CSV, "file.delimiter: \";;\""),
        (
            &with("line_end = \"crlf\""),
            CSV,
            "line 1, the header: the line ends with LF",
        ),
        (
            &with("columns = [\"no\", \"date\", \"amount\"]"),
            CSV,
            "file.columns: column 2 is \"date\" here and \"day\" in line 1",
        ),
        (
            &with("columns = [\"no\"]"),
            CSV,
            "column 2 is missing here and \"day\" in line 1",
        ),
    ] {
        setup.write("map.toml", map);
        let problem = error(&setup.csv_options(&setup.write("in.csv", csv))).to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", CSV);
    let json = setup.write("in.ndjson", "");
    let text = setup.write("in.txt", CSV);
    let over = |path: &Path| Options {
        refused: Some(path.to_owned()),
        ..setup.csv_options(&csv)
    };
    for (options, expected) in [
        (setup.options(&csv), "give --map"),
        (setup.csv_options(&json), "--map is for csv"),
        (setup.options(&text), "give --format"),
        (setup.options(Path::new("-")), "give --format"),
        (over(&csv), "give another --refused"),
        (over(&setup.path("map.toml")), "give another --refused"),
    ] {
        let error = error(&options);
        assert!(
            matches!(&error, Error::Usage(text) if text.contains(expected)),
            "{error}"
        );
    }
    for path in ["missing.ndjson", ""] {
        let options = Options {
            format: Some(Format::Ndjson),
            ..setup.options(&setup.path(path))
        };
        assert!(matches!(error(&options), Error::Read { .. }), "{path}");
    }
}

#[tokio::test]
async fn many_refused_rows_are_all_written_and_some_are_shown() {
    let setup = Setup::new();
    let mut csv = String::from("no,day,amount\n");
    csv.extend(
        (0..2_060).map(|i| format!("{i},2024-01-01,{}\n", if i % 2 == 0 { "1" } else { "x" })),
    );
    let summary = dry_run(&setup.csv_options(&setup.write("in.csv", csv))).await;
    assert_eq!((summary.acknowledged, summary.refused), (1_030, 1_030));
    assert_eq!(summary.first_refused.len(), 1_000);
    assert_eq!(
        summary.first_refused[0].why,
        Why::Invalid(millrace_rules::Reason::InvalidAmount)
    );
    assert!(summary.to_string().contains("and 30 more"), "{summary}");
    assert_eq!(setup.refused().lines().count(), 1_031);
}

#[test]
fn a_file_of_refused_rows_that_cannot_be_written_is_an_error_before_the_first_row() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", "no,day,amount\n1,2024-01-01,1\n");
    let options = Options {
        refused: Some(setup.path("missing/refused.csv")),
        ..setup.csv_options(&csv)
    };
    let Err(Error::Usage(problem)) = prepare(&options) else {
        panic!("it was not refused");
    };
    assert!(
        problem.starts_with("refused rows cannot be written to"),
        "{problem}"
    );
}

#[tokio::test]
async fn what_an_earlier_import_refused_is_removed_by_a_clean_one_and_nothing_else() {
    let setup = Setup::new();
    let csv = setup.write("in.csv", "no,day,amount\n1,2024-01-01,x\n");
    dry_run(&setup.csv_options(&csv)).await;
    assert_eq!(setup.refused().lines().count(), 2);
    setup.write("in.csv", "no,day,amount\n1,2024-01-01,1\n");
    let summary = dry_run(&setup.csv_options(&csv)).await;
    assert_eq!(summary.refused_file, None);
    assert_eq!(setup.refused().lines().count(), 2, "nothing was published");
    let finish = || {
        RefusedFile::new(setup.path("refused.csv"))
            .finish(true)
            .unwrap()
    };
    assert_eq!(finish(), None);
    assert!(!setup.path("refused.csv").exists());
    setup.write("refused.csv", "line,of,another,kind\n");
    assert_eq!(finish(), None);
    assert_eq!(setup.refused(), "line,of,another,kind\n");
}

const CHILD: &str = "MILLRACE_TEST_STDIN_MAP";

/// Run by itself, with something on standard input, by the next test.
#[tokio::test]
async fn stdin_child() {
    let Some(map) = std::env::var_os(CHILD) else {
        return;
    };
    let setup = Setup::new();
    let options = Options {
        map: Some(map.into()),
        format: Some(Format::Csv),
        ..setup.options(Path::new("-"))
    };
    let summary = dry_run(&options).await;
    assert_eq!((summary.acknowledged, summary.end), (3, End::Complete));
}

#[test]
fn standard_input() {
    let setup = Setup::new();
    for input in [CSV.as_bytes().to_vec(), gzip(CSV.as_bytes())] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::formats::stdin_child"])
            .env(CHILD, setup.path("map.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }
}
