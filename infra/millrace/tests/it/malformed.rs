//! Whatever clients send that is wrong is refused with a code and, where one is at fault, the field.

use axum::http::Method;

use crate::http::{Http, JSON, NDJSON, Service, TRANSACTIONS};
use crate::oracle::assert_all_posted_in_order;
use crate::place::Place;
use crate::records::{id, json, transfer};

fn good(number: u128) -> String {
    json(&transfer(number, "a", "b", 100)).to_string()
}

/// A good object with one field's raw value replaced, added (a new name) or, for `None`, left out.
fn with(field: &str, value: Option<&str>) -> String {
    let good = json(&transfer(0, "a", "b", 100));
    let fields = good.as_object().unwrap().iter();
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.as_str(), value.to_string()))
        .collect();
    fields.retain(|(name, _)| *name != field);
    fields.extend(value.map(|value| (field, value.to_owned())));
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Field | raw value, which may be left out | code. The field is the one at fault.
const FIELDS: &str = r#"
    id             |                                        | missing_id
    id             | "no-uuid"                              | invalid_id
    id             | ""                                     | invalid_id
    id             | "0190d5b0-7c1e-7a34-9f0e-5d3c2b1a0f9"  | invalid_id
    id             | "00000000-0000-0000-0000-000000000000" | invalid_id
    id             | 17                                     | invalid_type
    id             | null                                   | invalid_type
    kind           |                                        | missing_field
    kind           | ""                                     | invalid_kind
    kind           | "a\u0000b"                             | invalid_kind
    kind           | "\ud800"                               | invalid_type
    kind           | ["transfer"]                           | invalid_type
    debit_account  |                                        | missing_field
    debit_account  | "has space"                            | invalid_debit_account
    debit_account  | "😀"                                   | invalid_debit_account
    debit_account  | "Alice"                                | invalid_debit_account
    debit_account  | ""                                     | invalid_debit_account
    debit_account  | 7                                      | invalid_type
    credit_account | "b\n"                                  | invalid_credit_account
    credit_account | "a"                                    | same_account
    credit_account | {"id": "b"}                            | invalid_type
    amount         |                                        | missing_field
    amount         | 0                                      | invalid_amount
    amount         | -0                                     | invalid_amount
    amount         | -1                                     | invalid_amount
    amount         | 1.5                                    | invalid_amount
    amount         | 1.0                                    | invalid_amount
    amount         | 1e3                                    | invalid_amount
    amount         | 9223372036854775808                    | invalid_amount
    amount         | -9223372036854775809                   | invalid_amount
    amount         | 1000000000000001                       | invalid_amount
    amount         | 1e999999                               | invalid_amount
    amount         | "100"                                  | invalid_type
    amount         | true                                   | invalid_type
    amount         | null                                   | invalid_type
    currency       | "EUX"                                  | invalid_currency
    currency       | "eur"                                  | invalid_currency
    currency       | 978                                    | invalid_type
    occurred_at    | "yesterday"                            | invalid_occurred_at
    occurred_at    | "2026-01-02"                           | invalid_occurred_at
    occurred_at    | "2026-01-02T03:04:05"                  | invalid_occurred_at
    occurred_at    | "2026-02-30T00:00:00Z"                 | invalid_occurred_at
    occurred_at    | 1767323045                             | invalid_type
    reference      | "a\tb"                                 | invalid_reference
    reference      | null                                   | invalid_type
    source         |                                        | missing_field
    source         | ""                                     | invalid_source
    metadata       | []                                     | invalid_type
    metadata       | {"a": 1}                               | invalid_type
    metadata       | {"a": {"b": "c"}}                      | invalid_type
    metadata       | {"a": "1", "a": "2"}                   | invalid_metadata
    colour         | "red"                                  | unknown_field
    Amount         | 100                                    | unknown_field
"#;

/// An item that is JSON but no transaction.
struct Bad {
    text: String,
    code: String,
    field: Option<String>,
}

fn bad_items() -> Vec<Bad> {
    let bad = |text: String, code: &str, field: Option<&str>| Bad {
        text,
        code: code.into(),
        field: field.map(Into::into),
    };
    let mut items = Vec::new();
    for line in FIELDS.trim().lines() {
        let mut columns = line.split('|').map(str::trim);
        let mut column = || columns.next().unwrap();
        let (field, value, code) = (column(), column(), column());
        let value = (!value.is_empty()).then_some(value);
        items.push(bad(with(field, value), code, Some(field)));
    }
    let long = |length| format!("\"{}\"", "a".repeat(length));
    let metadata = format!("{{\"k\":{}}}", long(4_096));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for (field, value, code) in [
        ("debit_account", long(65), "invalid_debit_account"),
        ("kind", long(65), "invalid_kind"),
        ("reference", long(141), "invalid_reference"),
        ("source", long(65), "invalid_source"),
        ("metadata", metadata, "invalid_metadata"),
        ("metadata", deep.clone(), "invalid_type"),
    ] {
        items.push(bad(with(field, Some(&value)), code, Some(field)));
    }
    let twice = with("kind", Some("\"a\",\"kind\":\"a\""));
    items.push(bad(twice, "duplicate_field", Some("kind")));
    for text in ["7", "null", "\"text\"", "true", "[]", &deep] {
        items.push(bad(text.to_owned(), "not_an_object", None));
    }
    items
}

/// The JSON itself is broken.
fn broken() -> Vec<String> {
    let good = good(0);
    let mut broken: Vec<_> = [
        "{",
        "{}}",
        "{\"id\"",
        "'a'",
        "NaN",
        "{\"amount\": 01}",
        "{\"a\":1,}",
        "\u{feff}{}",
    ]
    .map(ToOwned::to_owned)
    .into();
    broken.push(good[..good.len() - 1].to_owned());
    broken.push(good[..good.len() / 2].to_owned());
    broken.push(format!("{good} {good}"));
    broken
}

#[tokio::test]
async fn every_wrong_item_is_refused_by_itself_and_named_in_a_batch() {
    let place = Place::new("malformed", 2).await;
    let gateway = place.service("gateway").await;
    let http = &gateway.http;
    let items = bad_items();
    for item in &items {
        let answer = http.post(JSON, item.text.clone()).await;
        if item.text.starts_with('[') {
            continue; // A batch, not an item: below.
        }
        let answer = answer.expect(422);
        let wanted = (item.code.clone(), item.field.clone());
        assert_eq!(answer.problem(), wanted, "{:.200}", item.text);
        if item.field.as_deref().is_some_and(|field| field != "id") {
            assert_eq!(answer.json()["id"], id(0).to_string(), "{:.200}", item.text);
        }
    }
    for text in broken() {
        let answer = http.post(JSON, text.clone()).await.expect(400);
        assert_eq!(answer.problem(), ("malformed_json".into(), None), "{text}");
        let position = (&answer.json()["line"], &answer.json()["column"]);
        assert!(position.0.is_u64() && position.1.is_u64(), "{answer:?}");
    }
    mixed(http, JSON, &items, 0).await;
    // Broken JSON ends an array, but only its own line.
    let mut lines = items;
    lines.extend(broken().into_iter().map(|text| Bad {
        text,
        code: "malformed_json".into(),
        field: None,
    }));
    mixed(http, NDJSON, &lines, 1_000).await;
    let ledger = place.ledger(1).await;
    place.drained().await;
    let posted = assert_all_posted_in_order(&place).await;
    assert_eq!(posted, GOOD_IN_MIXED * 2, "the good ones, and nothing else");
    let log = gateway.replica.stop().await.expect(0).err;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    ledger.stop().await.expect(0);
}

/// In [`mixed`]: the first, the last, and some in between.
const GOOD_IN_MIXED: usize = 4;

/// One request with all of the bad items and some good ones.
async fn mixed(http: &Http, content_type: &str, bad: &[Bad], from: u128) {
    let mut texts: Vec<_> = bad
        .iter()
        .map(|item| (item.text.clone(), Some(item)))
        .collect();
    let places = [0, 1, texts.len() / 2, texts.len() + GOOD_IN_MIXED - 1];
    for (place, number) in places.into_iter().zip(from + 1..) {
        texts.insert(place, (good(number), None));
    }
    let all: Vec<_> = texts.iter().map(|(text, _)| text.as_str()).collect();
    let body = match content_type {
        JSON => format!("[{}]", all.join(",")),
        _ => all.join("\n"),
    };
    let answer = http.post(content_type, body).await.expect(207).json();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&GOOD_IN_MIXED.into(), &bad.len().into())
    );
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), texts.len());
    for (index, ((text, bad), result)) in texts.iter().zip(results).enumerate() {
        let said = ["status", "code", "field"].map(|member| result[member].as_str());
        let wanted = match bad {
            None => [Some("accepted"), None, None],
            Some(bad) => [Some("rejected"), Some(&*bad.code), bad.field.as_deref()],
        };
        assert_eq!(said, wanted, "{text:.200}");
        assert_eq!(result["index"], index);
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_whole() {
    let place = Place::new("wrong", 1).await;
    let gateway = place.service("gateway").await;
    wrong_bodies(&gateway.http).await;
    wrong_headers(&gateway.http).await;
    let paths = "/ /v1 /v1/transactions/ /v1/transactions/x /V1/transactions /readyz /%00 /%ff";
    let methods =
        "GET /v1/transactions, PUT /v1/transactions, DELETE /v1/transactions, POST /openapi.json";
    paths_and_methods(&gateway.http, paths, methods).await;
    let ends = crate::log::ends(place.brokers(), place.topic(), 1).await;
    assert_eq!(ends, [0], "nothing of all that is in the log");
    let log = gateway.replica.stop().await.expect(0).err;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

async fn wrong_bodies(http: &Http) {
    let large = format!("{}{}", good(1), " ".repeat(3_000_000));
    let many = format!("[{}]", vec!["7"; 10_001].join(","));
    let broken_array = format!("[{},{}", good(1), good(2));
    for (content_type, body, status, code) in [
        (JSON, "", 400, "malformed_json"),
        (JSON, "[]", 422, "empty_batch"),
        (JSON, " [ ] ", 422, "empty_batch"),
        (NDJSON, "", 422, "empty_batch"),
        (NDJSON, "\n\r\n \n", 422, "empty_batch"),
        (JSON, "[7]", 422, "no_valid_item"),
        (NDJSON, "7", 422, "no_valid_item"),
        (JSON, &broken_array, 400, "malformed_json"),
        (JSON, &large, 413, "body_too_large"),
        (NDJSON, &large, 413, "body_too_large"),
        (JSON, &many, 413, "too_many_items"),
    ] {
        let answer = http.post(content_type, body.to_owned()).await;
        let found = (answer.status, answer.problem().0);
        assert_eq!(found, (status, code.into()), "{content_type} {body:.100}");
    }
    let not_utf8 = b"{\"kind\":\"\xff\"}".to_vec();
    let answer = http.post(JSON, not_utf8).await.expect(400);
    assert_eq!(answer.problem().0, "malformed_json");
    let array = format!("[{}]", good(1));
    let answer = http.post_with_key("k", array).await.expect(400);
    assert_eq!(answer.problem().0, "idempotency_key_not_allowed");
}

async fn wrong_headers(http: &Http) {
    let long = "k".repeat(256);
    for (name, value, status, code) in [
        ("content-type", "", 415, "unsupported_media_type"),
        ("content-type", "text/plain", 415, "unsupported_media_type"),
        (
            "content-type",
            "application/xml",
            415,
            "unsupported_media_type",
        ),
        ("content-encoding", "gzip", 415, "unsupported_media_type"),
        ("idempotency-key", "", 400, "invalid_idempotency_key"),
        (
            "idempotency-key",
            "two words",
            400,
            "invalid_idempotency_key",
        ),
        ("idempotency-key", &long, 400, "invalid_idempotency_key"),
    ] {
        let mut headers = vec![(name, value)];
        if name != "content-type" {
            headers.push(("content-type", JSON));
        }
        let answer = http
            .send(Method::POST, TRANSACTIONS, &headers, good(1))
            .await;
        let found = (answer.status, answer.problem().0);
        assert_eq!(found, (status, code.into()), "{name}: {value}");
    }
}

/// Paths are separated by blanks; methods with their paths by commas.
async fn paths_and_methods(http: &Http, paths: &str, methods: &str) {
    for path in paths.split(' ') {
        let answer = http.get(path).await.expect(404);
        assert_eq!(answer.problem().0, "not_found", "{path}");
    }
    for pair in methods.split(", ") {
        let (method, path) = pair.split_once(' ').unwrap();
        let method = method.parse::<Method>().unwrap();
        let answer = http.send(method, path, &[], "").await.expect(405);
        assert_eq!(answer.problem().0, "method_not_allowed", "{pair}");
        assert_ne!(answer.header("allow"), "", "{pair}");
    }
}

/// Path | status | code | field.
const QUESTIONS: &str = "
    /v1/transactions/none                       | 400 | invalid_id            | id
    /v1/transactions/%ff                        | 400 | invalid_path          | path
    /v1/transactions/ID                         | 404 | transaction_not_found | id
    /v1/transactions/ID?at_least=0:99&wait_ms=0 | 504 | not_yet_applied       | at_least
    /v1/transactions/ID?at_least=9:0&wait_ms=1  | 504 | not_yet_applied       | at_least
    /v1/transactions/ID?at_least=0              | 400 | invalid_at_least      | at_least
    /v1/transactions/ID?at_least=0:-1           | 400 | invalid_at_least      | at_least
    /v1/transactions/ID?at_least=a:b            | 400 | invalid_at_least      | at_least
    /v1/transactions/ID?at_least=               | 400 | invalid_at_least      | at_least
    /v1/transactions/ID?wait_ms=10001           | 400 | invalid_parameter     | wait_ms
    /v1/transactions/ID?wait_ms=-1              | 400 | invalid_parameter     | wait_ms
    /v1/transactions/ID?wait_ms=1.5             | 400 | invalid_parameter     | wait_ms
    /v1/transactions/ID?colour=red              | 400 | unknown_parameter     | colour
    /v1/accounts/Alice                          | 400 | invalid_account       | account
    /v1/accounts/has%20space                    | 400 | invalid_account       | account
    /v1/accounts/%F0%9F%98%80                   | 400 | invalid_account       | account
    /v1/accounts/a%00                           | 400 | invalid_account       | account
    /v1/accounts/nobody                         | 404 | account_not_found     | account
    /v1/accounts/nobody?limit=1                 | 400 | unknown_parameter     | limit
    /v1/accounts/Alice/transactions             | 400 | invalid_account       | account
    /v1/accounts/a/transactions?limit=0         | 400 | invalid_parameter     | limit
    /v1/accounts/a/transactions?limit=1001      | 400 | invalid_parameter     | limit
    /v1/accounts/a/transactions?limit=many      | 400 | invalid_parameter     | limit
    /v1/accounts/a/transactions?limit=1&limit=2 | 400 | repeated_parameter    | limit
    /v1/accounts/a/transactions?cursor=x        | 400 | invalid_cursor        | cursor
    /v1/accounts/a/transactions?cursor=1.2.3    | 400 | invalid_cursor        | cursor
    /v1/accounts/a/transactions?a=%ff           | 400 | invalid_query         |
    /v1/reports/everything                      | 404 | report_not_found      | name
    /v1/reports/balances?limit=10001            | 400 | invalid_parameter     | limit
    /v1/reports/balances?format=xml             | 400 | invalid_parameter     | format
    /v1/reports/balances?cursor=zz              | 400 | invalid_cursor        | cursor
    /v1/reports/balances?cursor=5b5d            | 400 | invalid_cursor        | cursor
    /v1/reports/balances?currency=EUX           | 400 | invalid_parameter     | currency
    /v1/reports/balances?account=A%20B          | 400 | invalid_parameter     | account
    /v1/reports/balances?reason=x               | 400 | unknown_parameter     | reason
    /v1/reports/daily_totals?from=2026-02-30    | 400 | invalid_parameter     | from
    /v1/reports/daily_totals?to=tomorrow        | 400 | invalid_parameter     | to
    /v1/reports/rejections?reason=because       | 400 | invalid_parameter     | reason
    /v1/reports/rejections?partition=-1         | 400 | invalid_parameter     | partition
    /v1/reports/transactions?recorded_from=1    | 400 | invalid_parameter     | recorded_from
    /v1/reports/transactions?kind=%00           | 400 | invalid_parameter     | kind
    /v1/partitions?limit=1                      | 400 | unknown_parameter     | limit
    /v1/freshness?at_least=0:x                  | 400 | invalid_at_least      | at_least
";

#[tokio::test]
async fn wrong_questions_are_answered_with_what_is_wrong() {
    let place = Place::new("questions", 1).await;
    let query = place.service("query").await;
    let Service { replica, http } = query;
    for line in QUESTIONS.trim().lines() {
        let mut columns = line.split('|').map(str::trim);
        let mut column = || columns.next().unwrap();
        let (path, status, code, field) = (column(), column(), column(), column());
        let answer = http.get(&path.replace("ID", &id(1).to_string())).await;
        let (said, at_fault) = answer.problem();
        let found = (
            answer.status.to_string(),
            said,
            at_fault.unwrap_or_default(),
        );
        assert_eq!(found, (status.into(), code.into(), field.into()), "{path}");
        if status == "404" && !path.contains("reports") {
            assert_ne!(answer.header("millrace-as-of"), "", "{path}");
        }
    }
    let paths = "/v2 /v1/transactions /v1/accounts/a/b /v1/reports /v1/accounts/%2e%2e/x/y /%00";
    let methods = "POST /v1/partitions, DELETE /v1/accounts/a, PATCH /v1/reports/balances";
    paths_and_methods(&http, paths, methods).await;
    let log = replica.stop().await.expect(0).err;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}
