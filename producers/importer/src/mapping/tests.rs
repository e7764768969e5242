//! Mappings that fit, rows that do not, and every wrong key.

use millrace_rules::Reason::{self, *};
use millrace_schemas::{Transaction, ids};

use super::mapper::{Columns, Mapper, parse};
use crate::refused::{Refusal, Why};
use crate::source::csv::{Dialect, Rows};

const MAP: &str = r#"
source = "test"
kind = "{kind}"
currency = "{currency}"
reference = "{text} ({{{no|lower}}})"

[id]
derive_from = ["no", "day"]

[occurred_at]
value = "{day}"
format = "%Y-%m-%d"

[amount]
value = "{amount}"
thousands = ","

[[direction]]
when = { type = "in", currency = ["EUR", "JPY"] }
debit = "{partner}"
credit = "acc:{no|compact|lower}"

[[direction]]
when = { type = ["out", "fee"] }
debit = "acc:{no|compact|lower}"
credit = "{partner}"

[[lookup]]
name = "kind"
key = "{type}"
values = { in = "incoming", out = "outgoing" }
otherwise = "other:{type}"

[[lookup]]
name = "partner"
key = "{kind}"
values = { incoming = "external:payer", outgoing = "external:{text|compact|lower}" }

[metadata]
day = "{day}"
text = "{text}"
"#;

const HEADER: &str = "no,day,type,amount,currency,text";

type Outcome = Result<Transaction<'static>, Refusal>;

fn columns() -> Columns {
    Columns {
        names: HEADER.split(',').map(String::from).collect(),
        place: "line 1".into(),
    }
}

fn mapper(map: &str) -> Result<Mapper, String> {
    let file = parse(map)?;
    Mapper::new(file, columns()).map_err(|error| error.to_string())
}

fn transaction(map: &str, row: &str) -> Outcome {
    let mapper = mapper(map).unwrap();
    let dialect = Dialect::new(&parse(map).unwrap().file).unwrap();
    let mut rows = Rows::new(row.as_bytes(), dialect).unwrap();
    let (_, row) = rows.next().unwrap().unwrap();
    mapper.transaction(row.unwrap_or_else(|broken| panic!("{broken:?}")))
}

/// The map with one piece of it replaced.
fn map_with(from: &str, to: &str) -> String {
    assert_eq!(MAP.matches(from).count(), 1, "{from}");
    MAP.replace(from, to)
}

#[test]
fn every_field_comes_from_the_row() {
    let row = r#"A 1, 2024-02-29 ,in,"1,234.5",EUR,"Joe ""X"" Doe""#;
    let transaction = transaction(MAP, row).unwrap();
    assert_eq!(transaction.id, ids::derive("test", &["A 1", "2024-02-29"]));
    assert_eq!(transaction.kind, "incoming");
    assert_eq!(transaction.debit_account.as_str(), "external:payer");
    assert_eq!(transaction.credit_account.as_str(), "acc:a1");
    assert_eq!(transaction.amount.minor_units(), 123_450);
    assert_eq!(transaction.currency.code(), "EUR");
    assert_eq!(transaction.occurred_at, 1_709_164_800_000_000);
    assert_eq!(transaction.reference, r#"Joe "X" Doe ({a 1})"#);
    assert_eq!(transaction.source, "test");
    let pairs = transaction.metadata.pairs().iter();
    let pairs: Vec<_> = pairs.map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
    assert_eq!(pairs, [("day", "2024-02-29"), ("text", r#"Joe "X" Doe"#)]);
}

#[test]
fn empty_metadata_is_left_out() {
    let transaction = transaction(MAP, "1,2024-01-01,in,1,EUR,").unwrap();
    assert_eq!(transaction.metadata.pairs().len(), 1);
    assert_eq!(transaction.reference, "({1})");
}

#[test]
fn conditions_choose_the_direction() {
    for (row, debit, credit) in [
        ("1,2024-01-01,in,1,EUR,x", "external:payer", "acc:1"),
        ("1,2024-01-01,in,1,JPY,x", "external:payer", "acc:1"),
        ("1,2024-01-01,out,1,USD,Ab c", "acc:1", "external:abc"),
    ] {
        let transaction = transaction(MAP, row).unwrap();
        assert_eq!(transaction.debit_account.as_str(), debit, "{row}");
        assert_eq!(transaction.credit_account.as_str(), credit, "{row}");
    }
}

/// Rows, and why they are refused.
const BAD_ROWS: &[(&str, Why, &str)] = &[
    (
        "1,2024-01-01,in,1,USD,x",
        Why::NoDirection,
        r#"type = "in""#,
    ),
    (
        "1,2024-01-01,in,1,USD,x",
        Why::NoDirection,
        r#"currency = "USD""#,
    ),
    ("1,2024-01-01,,1,EUR,x", Why::NoDirection, r#"type = """#),
    (
        "1,2024-01-01,fee,1,EUR,x",
        Why::NotListed,
        r#"lookup "partner" does not list "other:fee""#,
    ),
    (
        "1,2024-01-01,in,0,EUR,x",
        Why::Invalid(InvalidAmount),
        r#""0""#,
    ),
    (
        "1,2024-01-01,in,0.00,EUR,x",
        Why::Invalid(InvalidAmount),
        r#""0""#,
    ),
    (
        "1,2024-01-01,in,-1,EUR,x",
        Why::Invalid(InvalidAmount),
        r#""-100""#,
    ),
    (
        "1,2024-01-01,in,1.001,EUR,x",
        Why::Invalid(InvalidAmount),
        "more than 2 decimals",
    ),
    (
        "1,2024-01-01,in,1.5,JPY,x",
        Why::Invalid(InvalidAmount),
        "more than 0 decimals (JPY)",
    ),
    (
        "1,2024-01-01,in,,EUR,x",
        Why::Invalid(InvalidAmount),
        r#"amount "" is not a number"#,
    ),
    (
        "1,2024-01-01,in,10000000000000.01,EUR,x",
        Why::Invalid(InvalidAmount),
        "1 to 10^15",
    ),
    (
        "1,2024-01-01,in,92233720368547758.08,EUR,x",
        Why::Invalid(InvalidAmount),
        "too large",
    ),
    (
        "1,2024-01-01,in,1,EURO,x",
        Why::Invalid(InvalidCurrency),
        r#""EURO""#,
    ),
    (
        "1,2024-01-01,in,1,,x",
        Why::Invalid(InvalidCurrency),
        r#""""#,
    ),
    (
        "1,2024-02-30,in,1,EUR,x",
        Why::Invalid(InvalidOccurredAt),
        r#""2024-02-30""#,
    ),
    (
        "1,1899-12-31,in,1,EUR,x",
        Why::Invalid(InvalidOccurredAt),
        "the years 1900",
    ),
    ("1,,in,1,EUR,x", Why::Invalid(InvalidOccurredAt), r#""""#),
    (
        "1/2,2024-01-01,in,1,EUR,x",
        Why::Invalid(InvalidCreditAccount),
        "acc:1/2",
    ),
    (
        "1,2024-01-01,out,1,EUR,ž",
        Why::Invalid(InvalidCreditAccount),
        "external:ž",
    ),
    (
        "1,2024-01-01,in,1,EUR,x\ty",
        Why::Invalid(InvalidReference),
        r"x\ty",
    ),
];

#[test]
fn bad_rows_are_refused_by_reason() {
    for &(row, why, detail) in BAD_ROWS {
        let refusal = transaction(MAP, row).unwrap_err();
        assert_eq!(refusal.why, why, "{row}: {}", refusal.detail);
        assert!(refusal.detail.contains(detail), "{row}: {}", refusal.detail);
    }
    let same = map_with("external:payer", "acc:1");
    let refusal = transaction(&same, "1,2024-01-01,in,1,EUR,x").unwrap_err();
    assert_eq!(refusal.why, Why::Invalid(SameAccount));
    let id = map_with(r#"["no", "day"]"#, r#"["no"]"#);
    let refusal = transaction(&id, " ,2024-01-01,in,1,EUR,x").unwrap_err();
    assert_eq!(refusal.why, Why::Invalid(InvalidId));
}

#[test]
fn ids_may_stand_in_a_column() {
    let map = map_with(r#"derive_from = ["no", "day"]"#, r#"column = "text""#);
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let transaction_of = |text: &str| transaction(&map, &format!("1,2024-01-01,in,1,EUR,{text}"));
    assert_eq!(transaction_of(id).unwrap().id.to_string(), id);
    assert_eq!(
        transaction_of("17").unwrap_err().why,
        Why::Invalid(Reason::InvalidId)
    );
}

#[test]
fn the_sign_chooses_where_the_mapping_asks_for_it() {
    let map = map_with(
        r#"when = { type = "in", currency = ["EUR", "JPY"] }"#,
        "sign = \"positive\"",
    );
    let map = map.replace(r#"when = { type = ["out", "fee"] }"#, "sign = \"negative\"");
    for (amount, debit, minor) in [("1.50", "external:payer", 150), ("-1.50", "acc:1", 150)] {
        let kind = if minor == 150 && amount.starts_with('-') {
            "out"
        } else {
            "in"
        };
        let row = format!("1,2024-01-01,{kind},{amount},EUR,x");
        let transaction = transaction(&map, &row).unwrap();
        assert_eq!(transaction.debit_account.as_str(), debit);
        assert_eq!(transaction.amount.minor_units(), minor);
    }
    let refusal = transaction(&map, "1,2024-01-01,in,0,EUR,x").unwrap_err();
    assert_eq!(refusal.why, Why::Invalid(Reason::InvalidAmount));
}

#[test]
fn minor_units_are_taken_as_they_are() {
    let map = map_with("thousands = \",\"", "unit = \"minor\"");
    let transaction = transaction(&map, "1,2024-01-01,in,150,EUR,x").unwrap();
    assert_eq!(transaction.amount.minor_units(), 150);
}

/// A piece of [`MAP`], what stands there instead, and what the error says.
const WRONG_KEYS: &[(&str, &str, &str)] = &[
    // The keys themselves.
    (
        "source = \"test\"",
        "sorce = \"test\"",
        "unknown field `sorce`",
    ),
    ("source = \"test\"", "", "missing field `source`"),
    (
        "thousands = \",\"",
        "thousand = \",\"",
        "unknown field `thousand`",
    ),
    (
        "thousands = \",\"",
        "thousands = \",,\"",
        "expected a character",
    ),
    (
        "thousands = \",\"",
        "unit = \"cents\"",
        "unknown variant `cents`",
    ),
    (
        "[id]",
        "[file]\nencoding = \"latin1\"\n[id]",
        "unknown variant `latin1`",
    ),
    (
        "[id]",
        "[file]\nline_end = \"cr\"\n[id]",
        "unknown variant `cr`",
    ),
    ("[id]", "[file]\nheader = \"yes\"\n[id]", "header"),
    (
        "derive_from = [\"no\", \"day\"]",
        "derive_from = \"no\"",
        "derive_from",
    ),
    ("name = \"kind\"", "", "missing field `name`"),
    ("[metadata]", "[metadata", "TOML parse error at line 39"),
    // Constants.
    (
        "source = \"test\"",
        "source = \"\"",
        "source: \"\" is not 1 to 64",
    ),
    (
        "kind = \"{kind}\"",
        "kind = \"\"",
        "kind: \"\" is not 1 to 64",
    ),
    (
        "currency = \"{currency}\"",
        "currency = \"EURO\"",
        "currency: currency \"EURO\" is not",
    ),
    (
        "\"{partner}\"\ncredit",
        "\"Partner\"\ncredit",
        "direction 1, debit: \"Partner\" is not an account",
    ),
    // Columns.
    (
        "value = \"{day}\"",
        "value = \"{date}\"",
        "occurred_at.value: no column \"date\" in line 1: no, day, type",
    ),
    (
        "value = \"{amount}\"",
        "value = \"{amout}\"",
        "amount.value: no column \"amout\" in line 1",
    ),
    ("{text} (", "{txt} (", "reference: no column \"txt\""),
    (
        "currency = \"{currency}\"",
        "currency = \"{cur}\"",
        "currency: no column \"cur\"",
    ),
    (
        "[\"no\", \"day\"]",
        "[\"no\", \"nr\"]",
        "id.derive_from: no column \"nr\" in line 1",
    ),
    (
        "type = \"in\"",
        "typ = \"in\"",
        "direction 1, when: no column \"typ\"",
    ),
    (
        "debit = \"acc:{no|compact|lower}\"",
        "debit = \"acc:{nr}\"",
        "direction 2, debit: no column \"nr\"",
    ),
    (
        "day = \"{day}\"",
        "day = \"{dy}\"",
        "metadata.day: no column \"dy\"",
    ),
    (
        "key = \"{type}\"",
        "key = \"{typ}\"",
        "lookup \"kind\", key: no column \"typ\"",
    ),
    (
        "\"other:{type}\"",
        "\"{typ}\"",
        "lookup \"kind\", otherwise: no column \"typ\"",
    ),
    (
        "external:{text|",
        "external:{txt|",
        "lookup \"partner\", values.\"outgoing\": no column \"txt\"",
    ),
    // A lookup can only use those before it.
    (
        "key = \"{type}\"",
        "key = \"{partner}\"",
        "lookup \"kind\", key: no column \"partner\"",
    ),
    (
        "name = \"partner\"",
        "name = \"day\"",
        "lookup \"day\", name: \"day\" is the name of a column",
    ),
    (
        "name = \"partner\"",
        "name = \"kind\"",
        "lookup \"kind\", name: \"kind\" is the name of",
    ),
    // Templates.
    (
        "kind = \"{kind}\"",
        "kind = \"{kind\"",
        "kind: \"{kind\" has a { that is never closed",
    ),
    (
        "kind = \"{kind}\"",
        "kind = \"kind}\"",
        "kind: \"kind}\" has a } without a {",
    ),
    ("kind = \"{kind}\"", "kind = \"{}\"", "kind: no column \"\""),
    (
        "kind = \"{kind}\"",
        "kind = \"{kind|trim}\"",
        "kind: filter \"trim\" is not lower",
    ),
    // The rest.
    ("derive_from = [\"no\", \"day\"]", "", "id: give either"),
    (
        "derive_from = [\"no\", \"day\"]",
        "derive_from = []",
        "id: give either",
    ),
    ("[id]", "[id]\ncolumn = \"no\"", "id: give either"),
    (
        "%Y-%m-%d",
        "%Y-%m",
        "occurred_at: the format does not give a date",
    ),
    (
        "%Y-%m-%d\"",
        "%Y-%m-%d\"\ntime_zone = \"Mars\"",
        "occurred_at: ",
    ),
    (
        "thousands = \",\"",
        "decimal = \"1\"",
        "amount.decimal: '1'",
    ),
    (
        "thousands = \",\"",
        "thousands = \".\"",
        "amount.thousands: '.'",
    ),
];

#[test]
fn every_wrong_key_is_named() {
    for &(from, to, expected) in WRONG_KEYS {
        let error = mapper(&map_with(from, to)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    let (without, _) = MAP.split_once("[[direction]]").unwrap();
    assert!(
        mapper(without)
            .unwrap_err()
            .contains("missing field `direction`")
    );
}

#[test]
fn a_column_that_comes_twice_cannot_be_named() {
    let mut columns = columns();
    columns.names[1] = "no".into();
    columns.names.push("day".into());
    let error = Mapper::new(parse(MAP).unwrap(), columns).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column \"no\" comes twice in line 1"),
        "{error}"
    );
}
