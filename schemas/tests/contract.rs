//! The wire contract, held against `apache-avro` and against a second writer version.
#![expect(
    clippy::unwrap_used,
    reason = "a failed test should stop where it fails"
)]

use std::borrow::Cow;

use apache_avro::types::Value;
use apache_avro::{Reader, Schema};
use millrace_rules::{AccountId, Amount, Currency, Reason};
use millrace_schemas::codec::{self, ContentType, DecodeError, SCHEMA};
use millrace_schemas::key::Key;
use millrace_schemas::wire::Metadata;
use millrace_schemas::{Transaction, Wire, decode, encode};
use proptest::prelude::*;
use uuid::Uuid;

fn account(id: &str) -> AccountId<'static> {
    AccountId::parse(Cow::Owned(id.to_owned())).unwrap()
}

fn sample() -> Transaction<'static> {
    Transaction {
        id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        kind: "transfer".into(),
        debit_account: account("alice"),
        credit_account: account("bob"),
        amount: Amount::new(12_345).unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        occurred_at: 1_700_000_000_123_456,
        reference: "invoice 7 – zürich".into(),
        source: "core-bank".into(),
        metadata: Metadata::new(vec![("b".into(), "2".into()), ("a".into(), "1".into())]).unwrap(),
    }
}

fn avro(transaction: &Transaction<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(transaction, &mut bytes);
    bytes
}

fn apache(schema: &str) -> Schema {
    Schema::parse_str(schema).expect("the schema parses")
}

/// The v1 schema with two fields more, as a later writer may have it.
fn second_version() -> String {
    let v2 = SCHEMA
        .trim_end()
        .trim_end_matches('}')
        .trim_end()
        .trim_end_matches(']')
        .to_owned()
        + r#", {"name": "channel", "type": "string", "default": "unknown"},
             {"name": "priority", "type": ["null", "int"], "default": null}]}"#;
    assert!(v2.contains("channel"));
    v2
}

#[test]
fn single_object_encoding_agrees_with_apache_avro() {
    let bytes = avro(&sample());
    let schema = apache(SCHEMA);
    // The CRC-64-AVRO fingerprint of the canonical form, as Python's fastavro computes it;
    // apache-avro 0.21 strays from the canonical form at logical types.
    assert_eq!(bytes[..2], [0xc3, 0x01]);
    assert_eq!(
        bytes[2..10],
        [0xc6, 0x62, 0x14, 0x98, 0x07, 0xca, 0x6c, 0x04]
    );
    let Value::Record(fields) =
        apache_avro::from_avro_datum(&schema, &mut &bytes[10..], None).unwrap()
    else {
        panic!("a record")
    };
    let field = |name| &fields.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(field("id"), &Value::Uuid(sample().id));
    assert_eq!(field("amount"), &Value::Long(12_345));
    assert_eq!(
        field("occurred_at"),
        &Value::TimestampMicros(1_700_000_000_123_456)
    );
    assert_eq!(
        field("reference"),
        &Value::String("invoice 7 – zürich".into())
    );
}

#[test]
fn an_older_reader_understands_a_newer_writer_and_the_reverse() {
    let (v1, v2) = (apache(SCHEMA), apache(&second_version()));
    assert!(apache_avro::schema_compatibility::SchemaCompatibility::mutual_read(&v1, &v2).is_ok());

    // A v2 writer's bytes through the hot path's decoder, with the v2 writer schema.
    let old = apache_avro::from_avro_datum(&v1, &mut &avro(&sample())[10..], None).unwrap();
    let new = old.clone().resolve(&v2).unwrap();
    let datum = apache_avro::to_avro_datum(&v2, new).unwrap();
    let writer: serde_avro_fast::Schema = second_version().parse().unwrap();
    let wire: Wire<'_> = serde_avro_fast::from_datum_slice(&datum, &writer).unwrap();
    assert_eq!(Transaction::try_from(wire).unwrap(), sample());

    // The same bytes resolved by apache-avro to the v1 reader are the v1 record.
    let resolved = apache_avro::from_avro_datum(&v2, &mut &datum[..], Some(&v1)).unwrap();
    assert_eq!(resolved, old);
}

#[test]
fn a_file_written_by_apache_avro_is_read_back_field_by_field() {
    let schema = apache(SCHEMA);
    let value = apache_avro::from_avro_datum(&schema, &mut &avro(&sample())[10..], None).unwrap();
    let mut writer = apache_avro::Writer::new(&schema, Vec::new());
    writer.append(value.clone()).unwrap();
    let file = writer.into_inner().unwrap();
    let read: Vec<_> = Reader::new(&file[..])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read, [value]);
}

#[test]
fn avro_and_json_have_the_same_digest() {
    let (bytes, json) = (avro(&sample()), codec::encode_json(&sample()));
    let from_avro = Transaction::try_from(decode(&bytes, ContentType::Avro).unwrap()).unwrap();
    let from_json =
        Transaction::try_from(decode(json.as_bytes(), ContentType::Json).unwrap()).unwrap();
    assert_eq!(from_avro, from_json);
    assert_eq!(from_avro.digest(), from_json.digest());
    // Computed from the canonical bytes with Python's hashlib.
    let append = |hex, byte: &u8| format!("{hex}{byte:02x}");
    let hex = from_avro.digest().iter().fold(String::new(), append);
    assert_eq!(
        hex,
        "38892d351c7d96e6219d728d67142ddf676dc9494f66b70d337e35aec637182e"
    );
}

fn schema(result: &Result<Wire<'_>, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::UnknownSchema(_)))
}

fn broken(result: &Result<Wire<'_>, DecodeError>) -> bool {
    matches!(result, Err(DecodeError::Undecodable(_)))
}

#[test]
fn what_cannot_be_understood_says_so() {
    let mut unknown = avro(&sample());
    unknown[2] ^= 1;
    let mut trailing = avro(&sample());
    trailing.push(0);
    let cut = avro(&sample());
    assert!(schema(&decode(&unknown, ContentType::Avro)));
    assert!(schema(&decode(&[0, 0, 0, 0, 7, 1], ContentType::Avro)));
    assert!(broken(&decode(&trailing, ContentType::Avro)));
    assert!(broken(&decode(&cut[..cut.len() - 1], ContentType::Avro)));
    assert!(broken(&decode(b"", ContentType::Avro)));
    assert!(broken(&decode(b"garbage", ContentType::Avro)));
    let json = codec::encode_json(&sample());
    for bad in [
        json.replacen("12345", "01", 1),
        json.replacen("\"amount\":12345,", "", 1),
        json.replacen("\"kind\"", "\"kind\":\"x\",\"kind\"", 1),
        json.replacen("\"kind\"", "\"sort\":\"x\",\"kind\"", 1),
        json.replacen("{\"a\"", "{\"a\":\"0\",\"a\"", 1),
        json[..json.len() - 1].to_owned(),
        format!("{json}{json}"),
    ] {
        assert_ne!(bad, json);
        assert!(broken(&decode(bad.as_bytes(), ContentType::Json)), "{bad}");
    }
}

#[test]
fn a_json_amount_or_time_that_is_none_is_refused_as_it_was_written() {
    let json = codec::encode_json(&sample());
    let time = "\"2023-11-14T22:13:20.123456Z\"";
    for (from, to, reason) in [
        ("12345", "123.45", Reason::InvalidAmount),
        ("12345", "1e3", Reason::InvalidAmount),
        ("12345", "1e999", Reason::InvalidAmount),
        ("12345", "\"12345\"", Reason::InvalidAmount),
        ("12345", "null", Reason::InvalidAmount),
        ("12345", "[1]", Reason::InvalidAmount),
        ("12345", "9223372036854775808", Reason::InvalidAmount),
        (time, "\"2023-02-30T00:00:00Z\"", Reason::InvalidOccurredAt),
        (time, "\"yesterday\"", Reason::InvalidOccurredAt),
        (time, "\"10000-01-01T00:00:00Z\"", Reason::InvalidOccurredAt),
        (time, "1700000000", Reason::InvalidOccurredAt),
    ] {
        let bad = json.replacen(from, to, 1);
        assert_ne!(bad, json);
        let wire = decode(bad.as_bytes(), ContentType::Json).unwrap();
        let (wire, invalid) = Transaction::try_from(wire).unwrap_err();
        assert_eq!(invalid.reason, reason, "{bad}");
        assert!(invalid.detail.contains(to.trim_matches('"')), "{invalid}");
        assert_eq!(
            wire.amount_read().is_none(),
            reason == Reason::InvalidAmount
        );
        assert_eq!(wire.debit_account, "alice");
    }
    // An earlier reason still comes first.
    let bad = json
        .replacen("12345", "0.5", 1)
        .replacen("alice", "Alice", 1);
    let wire = decode(bad.as_bytes(), ContentType::Json).unwrap();
    let (_, invalid) = Transaction::try_from(wire).unwrap_err();
    assert_eq!(invalid.reason, Reason::InvalidDebitAccount);
}

#[test]
fn a_field_out_of_its_domain_is_refused_with_the_first_reason() {
    type Change = fn(&mut Wire<'_>);
    let table: [(Reason, Change); 17] = [
        (Reason::InvalidId, |w| w.id = "17".into()),
        (Reason::InvalidId, |w| w.id = Uuid::nil().to_string().into()),
        (Reason::InvalidKind, |w| w.kind = "".into()),
        (Reason::InvalidKind, |w| w.kind = "a\u{0}".into()),
        (Reason::InvalidDebitAccount, |w| {
            w.debit_account = "Alice".into();
        }),
        (Reason::InvalidDebitAccount, |w| {
            w.debit_account = "a b".into();
            w.amount = 0;
        }),
        (Reason::InvalidCreditAccount, |w| {
            w.credit_account = "😀".into();
        }),
        (Reason::SameAccount, |w| {
            w.credit_account = w.debit_account.clone();
        }),
        (Reason::InvalidAmount, |w| w.amount = 0),
        (Reason::InvalidAmount, |w| w.amount = -1),
        (Reason::InvalidAmount, |w| w.amount = Amount::MAX + 1),
        (Reason::InvalidCurrency, |w| w.currency = "eur".into()),
        (Reason::InvalidOccurredAt, |w| w.occurred_at = i64::MIN),
        (Reason::InvalidReference, |w| {
            w.reference = "é".repeat(141).into();
        }),
        (Reason::InvalidSource, |w| w.source = "a\u{85}b".into()),
        (Reason::InvalidMetadata, |w| {
            w.metadata = Metadata::new(vec![("k".into(), "v".repeat(4096).into())]).unwrap();
        }),
        (Reason::InvalidMetadata, |w| {
            w.metadata = Metadata::new(vec![("k".into(), "\n".into())]).unwrap();
        }),
    ];
    let good = sample();
    for (expected, change) in table {
        let mut wire = good.to_wire();
        change(&mut wire);
        let (_, invalid) = Transaction::try_from(wire).unwrap_err();
        assert_eq!(invalid.reason, expected, "{invalid}");
    }
    let mut longest = good.to_wire();
    longest.reference = "é".repeat(140).into();
    assert!(Transaction::try_from(longest).is_ok());
}

#[test]
fn the_key_is_the_account_that_can_run_dry() {
    for (debit, credit, key) in [
        ("alice", "bob", "alice"),
        ("alice", "external:w", "alice"),
        ("external:w", "bob", "bob"),
        (
            "external:w",
            "external:x",
            "01920000-0000-7000-8000-000000000001",
        ),
    ] {
        let transaction = Transaction {
            debit_account: account(debit),
            credit_account: account(credit),
            ..sample()
        };
        assert_eq!(Key::of(&transaction).to_string(), key);
        Key::of(&transaction).with_bytes(|bytes| assert_eq!(bytes, key.as_bytes()));
    }
}

#[test]
fn time_bounds_are_the_years_they_say() {
    use jiff::Timestamp;
    use millrace_schemas::transaction::{OCCURRED_AT_MAX, OCCURRED_AT_MIN};
    let micros = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
    assert_eq!(OCCURRED_AT_MIN, micros("1900-01-01T00:00:00Z"));
    assert_eq!(OCCURRED_AT_MAX, micros("9998-12-31T23:59:59.999999Z"));
}

#[test]
fn json_by_content_type() {
    for (header, expected) in [
        ("application/json", ContentType::Json),
        ("Application/JSON; charset=utf-8", ContentType::Json),
        ("avro/binary", ContentType::Avro),
        ("", ContentType::Avro),
    ] {
        assert_eq!(
            ContentType::from_header(header.as_bytes()),
            expected,
            "{header}"
        );
    }
}

prop_compose! {
    fn any_transaction()(
        id in 1u128..,
        kind in "[a-z_é]{1,40}",
        debit in "[a-z0-9][A-Za-z0-9._:-]{0,63}",
        credit in "[a-z0-9][A-Za-z0-9._:-]{0,62}",
        amount in 1..=Amount::MAX,
        currency in prop::sample::select(vec!["EUR", "CZK", "JPY", "KWD"]),
        occurred_at in millrace_schemas::transaction::OCCURRED_AT_MIN
            ..=millrace_schemas::transaction::OCCURRED_AT_MAX,
        reference in "[ -~é日]{0,140}",
        source in "[a-z\"\\\\]{1,64}",
        metadata in prop::collection::btree_map("[a-z\"]{0,8}", "[ -~é]{0,20}", 0..6),
    ) -> Transaction<'static> {
        let credit = if credit == debit { format!("{credit}x") } else { credit };
        let pairs = metadata.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Transaction {
            id: Uuid::from_u128(id),
            kind: kind.into(),
            debit_account: account(&debit),
            credit_account: account(&credit[..credit.len().min(64)]),
            amount: Amount::new(amount).unwrap(),
            currency: Currency::parse(currency).unwrap(),
            occurred_at,
            reference: reference.into(),
            source: source.into(),
            metadata: Metadata::new(pairs).unwrap(),
        }
    }
}

proptest! {
    /// Both decoders, both encodings: one transaction.
    #[test]
    fn every_encoding_round_trips(transaction in any_transaction()) {
        let bytes = avro(&transaction);
        let fast = decode(&bytes, ContentType::Avro).unwrap();
        let schema = apache(SCHEMA);
        let value = apache_avro::from_avro_datum(&schema, &mut &bytes[10..], None).unwrap();
        let again = apache_avro::to_avro_datum(&schema, value).unwrap();
        // A map of several entries may come out in another order.
        if transaction.metadata.pairs().len() < 2 {
            prop_assert_eq!(&again[..], &bytes[10..]);
        }
        let slow_bytes = [&bytes[..10], &again[..]].concat();
        prop_assert_eq!(&decode(&slow_bytes, ContentType::Avro).unwrap(), &fast);
        prop_assert_eq!(&Transaction::try_from(fast).unwrap(), &transaction);
        let json = codec::encode_json(&transaction);
        let from_json = decode(json.as_bytes(), ContentType::Json).unwrap();
        prop_assert_eq!(&Transaction::try_from(from_json).unwrap(), &transaction);
    }

    /// No bytes make the decoder panic, whatever they claim to be.
    #[test]
    fn arbitrary_bytes_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        flip in 10usize..80,
    ) {
        let _ = decode(&noise, ContentType::Json);
        let _ = decode(&noise, ContentType::Avro);
        let mut bytes = avro(&sample());
        let _ = decode(&[&bytes[..10], &noise[..]].concat(), ContentType::Avro);
        let place = flip % bytes.len();
        bytes[place] ^= 0xff;
        let _ = decode(&bytes, ContentType::Avro).map(Transaction::try_from);
    }
}
