use super::*;

const ID: &str = "0190d5b0-7c1e-7a34-9f0e-5d3c2b1a0f9e";

/// A valid object with one field's raw value replaced, added (a new name) or left out (`None`).
fn object(name: &str, value: Option<&str>) -> String {
    let mut fields = vec![
        ("id", format!("\"{ID}\"")),
        ("kind", "\"payment\"".into()),
        ("debit_account", "\"acc-1\"".into()),
        ("credit_account", "\"acc-2\"".into()),
        ("amount", "1250".into()),
        ("currency", "\"EUR\"".into()),
        ("occurred_at", "\"2024-07-01T12:00:00.000001Z\"".into()),
        ("source", "\"shop\"".into()),
    ];
    fields.retain(|(field, _)| *field != name);
    fields.extend(value.map(|value| (name, value.to_owned())));
    let fields: Vec<_> = fields.iter().map(|(n, v)| format!("{n:?}:{v}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn rejection(text: &str) -> (&'static str, Option<String>) {
    let rejection = parse(text, None).expect_err(&text[..text.len().min(200)]);
    assert!(rejection.detail.len() < 600, "{}", rejection.detail);
    (rejection.code, rejection.field.map(Cow::into_owned))
}

#[test]
fn a_valid_object_is_read_as_it_is() {
    let text = object("metadata", Some(r#"{"b":"2","a":"\u00e9"}"#));
    let transaction = parse(&text, None).unwrap();
    assert_eq!(transaction.id.to_string(), ID);
    assert_eq!(transaction.amount.minor_units(), 1250);
    assert_eq!(transaction.occurred_at, 1_719_835_200_000_001);
    let pairs = transaction.metadata.pairs();
    assert_eq!(pairs, [("a".into(), "é".into()), ("b".into(), "2".into())]);
    let same = millrace_schemas::codec::decode_json(text.as_bytes()).unwrap();
    assert_eq!(Transaction::try_from(same).unwrap(), transaction);
}

#[test]
fn every_wrong_value_is_named_by_code_and_field() {
    let long = |count| format!("\"{}\"", "x".repeat(count));
    let metadata = format!(r#"{{"k":{}}}"#, long(4096));
    for (field, value, code) in [
        ("id", "\"no\"", "invalid_id"),
        (
            "id",
            "\"00000000-0000-0000-0000-000000000000\"",
            "invalid_id",
        ),
        ("id", "null", "invalid_type"),
        ("id", "7", "invalid_type"),
        ("kind", "\"\"", "invalid_kind"),
        ("kind", &long(65), "invalid_kind"),
        ("kind", "[]", "invalid_type"),
        ("kind", r#""a\u0000""#, "invalid_kind"),
        ("kind", r#""\ud800""#, "invalid_type"),
        ("debit_account", "\"A\"", "invalid_debit_account"),
        ("debit_account", "true", "invalid_type"),
        ("credit_account", "\"\"", "invalid_credit_account"),
        ("credit_account", "\"acc-1\"", "same_account"),
        ("amount", "0", "invalid_amount"),
        ("amount", "-0", "invalid_amount"),
        ("amount", "-1", "invalid_amount"),
        ("amount", "1.5", "invalid_amount"),
        ("amount", "1.0", "invalid_amount"),
        ("amount", "1e3", "invalid_amount"),
        ("amount", "1000000000000001", "invalid_amount"),
        ("amount", "9223372036854775808", "invalid_amount"),
        ("amount", "1e999999999999", "invalid_amount"),
        ("amount", "\"12\"", "invalid_type"),
        ("amount", "null", "invalid_type"),
        ("currency", "\"eur\"", "invalid_currency"),
        ("currency", "978", "invalid_type"),
        (
            "occurred_at",
            "\"2024-02-30T00:00:00Z\"",
            "invalid_occurred_at",
        ),
        (
            "occurred_at",
            "\"2024-07-01T12:00:00\"",
            "invalid_occurred_at",
        ),
        (
            "occurred_at",
            "\"1899-12-31T23:59:59Z\"",
            "invalid_occurred_at",
        ),
        ("occurred_at", "1719835200", "invalid_type"),
        ("reference", &long(141), "invalid_reference"),
        ("reference", "null", "invalid_type"),
        ("source", "\"\"", "invalid_source"),
        ("source", "{}", "invalid_type"),
        ("metadata", &metadata, "invalid_metadata"),
        ("metadata", r#"{"a":"1","a":"2"}"#, "invalid_metadata"),
        ("metadata", r#"{"a":"\n"}"#, "invalid_metadata"),
        ("metadata", r#"{"a":1}"#, "invalid_type"),
        ("metadata", r#"{"a":{"b":"c"}}"#, "invalid_type"),
        ("metadata", r#"{"\ud800":"1"}"#, "invalid_type"),
        ("metadata", "[]", "invalid_type"),
        ("metadata", "null", "invalid_type"),
    ] {
        let found = rejection(&object(field, Some(value)));
        assert_eq!(found, (code, Some(field.to_owned())), "{field} {value:.80}");
    }
}

#[test]
fn fields_are_required_once_and_known() {
    for field in Field::ALL {
        let optional = matches!(field, Field::Reference | Field::Metadata);
        let without = object(field.name(), None);
        let code = if field == Field::Id {
            "missing_id"
        } else {
            "missing_field"
        };
        if optional {
            parse(&without, None).unwrap();
        } else {
            assert_eq!(rejection(&without), (code, Some(field.name().into())));
        }
        let twice = object("", None).replacen('{', &format!("{{{:?}:1,", field.name()), 1);
        let twice = if optional {
            twice.replacen('{', &format!("{{{:?}:1,", field.name()), 1)
        } else {
            twice
        };
        assert_eq!(
            rejection(&twice),
            ("duplicate_field", Some(field.name().into()))
        );
    }
    let escaped = object("am\u{6f}unt2", Some("1"));
    assert_eq!(
        rejection(&escaped),
        ("unknown_field", Some("amount2".into()))
    );
    let escaped = object("", None).replacen('{', r#"{"\u0061mount":1,"#, 1);
    assert_eq!(
        rejection(&escaped),
        ("duplicate_field", Some("amount".into()))
    );
    let (code, field) = rejection(&object(&"x".repeat(100_000), Some("1")));
    assert_eq!(
        (code, field.unwrap().len()),
        ("unknown_field", SHOWN_CHARS_MAX)
    );
}

#[test]
fn broken_json_is_told_from_other_values() {
    for (text, code) in [
        ("", MALFORMED_JSON),
        ("{", MALFORMED_JSON),
        ("{}x", MALFORMED_JSON),
        ("{'a':1}", MALFORMED_JSON),
        ("{\"a\":1,}", MALFORMED_JSON),
        ("{\"a\":01}", MALFORMED_JSON),
        ("{\"a\":NaN}", MALFORMED_JSON),
        ("{\"a\":\"\n\"}", MALFORMED_JSON),
        ("\u{feff}{}", MALFORMED_JSON),
        ("nul", MALFORMED_JSON),
        ("null", "not_an_object"),
        ("7", "not_an_object"),
        ("\"{}\"", "not_an_object"),
        ("[{}]", "not_an_object"),
    ] {
        assert_eq!(rejection(text), (code, None), "{text:?}");
    }
    let position = parse("{\n  \"a\" 1}", None).unwrap_err().position;
    assert_eq!(position, Some(Position { line: 2, column: 7 }));
    let rejection = utf8(b"{\n\"\xff\"}").unwrap_err();
    assert_eq!(rejection.code, MALFORMED_JSON);
    assert_eq!(rejection.position, Some(Position { line: 2, column: 2 }));
}

#[test]
fn depth_is_refused_without_recursion() {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{open}{close}");
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert_eq!(rejection(&deep), ("not_an_object", None));
    assert_eq!(rejection(&objects), ("unknown_field", Some("a".into())));
    assert_eq!(rejection(&open), (MALFORMED_JSON, None));
    for field in ["kind", "amount", "metadata"] {
        for value in [&deep, &objects] {
            let found = rejection(&object(field, Some(value)));
            assert_eq!(found, ("invalid_type", Some(field.into())));
        }
    }
    let deep = elements(&deep).unwrap();
    assert_eq!(rejection(deep[0].get()), ("not_an_object", None));
    assert_eq!(elements(&open).unwrap_err().code, MALFORMED_JSON);
}

#[test]
fn a_key_gives_the_id_that_is_missing() {
    let without = object("id", None);
    let id = |text: &str, key| parse(text, Some(key)).unwrap().id;
    assert_eq!(id(&without, "k"), ids::derive("shop", &["k"]));
    assert_ne!(id(&without, "k"), id(&without, "l"));
    assert_eq!(id(&object("", None), "k").to_string(), ID, "the id counts");
}

#[test]
fn the_id_of_a_rejected_item_is_told_where_it_can_be_read() {
    for (text, readable) in [
        (object("amount", Some("0")), true),
        (object("colour", Some("0")), true),
        (object("id", Some("\"x\"")), false),
        (object("id", None), false),
        ("{".into(), false),
    ] {
        let id = parse(&text, None).unwrap_err().id;
        assert_eq!(id.is_some(), readable, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[\\[\\]{}\":,0-9eE.\\\\u +\u{e9}a-z_-]{0,60}") {
        let _ = (parse(&text, None), elements(&text));
    }

    #[test]
    fn no_value_panics(value in "[\\[\\]{}\":,0-9eE.\\\\u +\u{e9}a-z_-]{0,30}", field in 0..10_usize) {
        let _ = parse(&object(Field::ALL[field].name(), Some(&value)), Some("key"));
    }
}
