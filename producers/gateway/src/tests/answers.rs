//! What is accepted and what is refused, with which words.

use super::*;

#[tokio::test]
async fn one_object_is_accepted_with_its_receipt() {
    let fixture = Fixture::new().await;
    let reply = fixture
        .post("application/json; charset=utf-8", example().to_string())
        .await;
    let body = reply.accepted();
    assert_eq!(body["status"], "accepted");
    assert_eq!(body["id"], example()["id"]);
    assert!(
        body["offset"].is_i64() && body["partition"].is_i64(),
        "{body}"
    );
    assert_eq!(fixture.acknowledged(), 1);
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_code_and_field() {
    let fixture = Fixture::new().await;
    let reply = fixture
        .post(JSON, with("amount", 1.5.into()).to_string())
        .await;
    reply.expect(422, "invalid_amount");
    assert_eq!(
        (&reply.body["field"], &reply.body["id"]),
        (&"amount".into(), &example()["id"])
    );
    let reply = fixture.post(JSON, "{\n \"id\" 1}").await;
    reply.expect(400, "malformed_json");
    assert_eq!(
        (&reply.body["line"], &reply.body["column"]),
        (&2.into(), &7.into())
    );
    for (body, status, code) in [
        ("", 400, "malformed_json"),
        ("7", 422, "not_an_object"),
        ("[]", 422, "empty_batch"),
        ("[{}", 400, "malformed_json"),
        ("[{}]x", 400, "malformed_json"),
        ("[{\"a\":01}]", 400, "malformed_json"),
        ("[7]", 422, "no_valid_item"),
    ] {
        fixture.post(JSON, body).await.expect(status, code);
    }
    fixture
        .post(JSON, &b"{\"id\":\"\xff\"}"[..])
        .await
        .expect(400, "malformed_json");
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    fixture
        .post(JSON, deep.clone())
        .await
        .expect(422, "no_valid_item");
    fixture
        .post(NDJSON, deep)
        .await
        .expect(422, "no_valid_item");
    for body in ["", "\n \r\n\n"] {
        fixture.post(NDJSON, body).await.expect(422, "empty_batch");
    }
    let broken_at_its_end = format!("[{},{}", numbered(0), numbered(1));
    fixture
        .post(JSON, broken_at_its_end)
        .await
        .expect(400, "malformed_json");
    assert_eq!(fixture.acknowledged(), 0, "nothing was published");
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn other_media_types_and_encodings_are_refused() {
    let fixture = Fixture::new().await;
    let body = example().to_string();
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/jsonx")],
        &[("content-type", JSON), ("content-encoding", "gzip")],
    ] {
        fixture
            .send(headers, body.clone())
            .await
            .expect(415, "unsupported_media_type");
    }
    let headers = [
        ("content-type", "Application/JSON"),
        ("content-encoding", "identity"),
    ];
    fixture.send(&headers, body.clone()).await.accepted();
    fixture.post("application/ndjson", body).await.accepted();
}

#[tokio::test]
async fn mixed_batches_name_each_item() {
    let fixture = Fixture::new().await;
    let items = [
        numbered(0),
        with("amount", 0.into()),
        json!(7),
        without_id(),
        numbered(1),
    ];
    for (content_type, body) in [(JSON, json!(items).to_string()), (NDJSON, lines(&items))] {
        let reply = fixture.post(content_type, body).await;
        assert_eq!(reply.status, StatusCode::MULTI_STATUS, "{}", reply.body);
        assert_eq!(
            (&reply.body["accepted"], &reply.body["rejected"]),
            (&2.into(), &3.into())
        );
        let results = reply.body["results"].as_array().unwrap();
        let codes: Vec<_> = results.iter().map(|item| item["code"].as_str()).collect();
        let expected = [
            None,
            Some("invalid_amount"),
            Some("not_an_object"),
            Some("missing_id"),
            None,
        ];
        assert_eq!(codes, expected);
        for (index, result) in results.iter().enumerate() {
            assert_eq!(result["index"], index);
        }
        assert_eq!(results[0]["id"], items[0]["id"]);
        assert_eq!(
            (&results[1]["id"], &results[1]["field"]),
            (&items[1]["id"], &"amount".into())
        );
        assert_eq!(results[4]["status"], "accepted");
    }
    let body = json!([numbered(0), numbered(1)]).to_string();
    let reply = fixture.post(JSON, body).await;
    assert_eq!(
        (&reply.accepted()["accepted"], &reply.body["rejected"]),
        (&2.into(), &0.into())
    );
    let bad = json!([with("kind", "".into())]).to_string();
    let reply = fixture.post(JSON, bad).await;
    reply.expect(422, "no_valid_item");
    assert_eq!(reply.body["results"][0]["code"], "invalid_kind");
}

#[tokio::test]
async fn a_broken_line_is_told_by_its_number() {
    let fixture = Fixture::new().await;
    let body = format!("\n{}\r\n{{\"id\" 1}}\n\n{}", numbered(0), numbered(1));
    let reply = fixture.post(NDJSON, body).await;
    assert_eq!(reply.status, StatusCode::MULTI_STATUS, "{}", reply.body);
    let broken = &reply.body["results"][1];
    assert_eq!(
        (&broken["code"], &broken["line"]),
        (&"malformed_json".into(), &3.into())
    );
    assert_eq!(reply.body["accepted"], 2);
}

#[tokio::test]
async fn lines_may_be_cut_anywhere() {
    let fixture = Fixture::new().await;
    let mut item = numbered(0);
    item["reference"] = "příjem 😀".into();
    let mut second = item.clone();
    second["id"] = numbered(1)["id"].clone();
    let body = lines(&[item, second]).into_bytes();
    for size in [1, 2, 3, 7, 500] {
        let chunks: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).collect();
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
        let reply = fixture.post(NDJSON, Body::from_stream(chunks)).await;
        assert_eq!(reply.accepted()["accepted"], 2, "{size}");
    }
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn order_within_a_partition_is_that_of_the_request() {
    let fixture = Fixture::new().await;
    let items: Vec<_> = (0..500).map(numbered).collect();
    for (content_type, body) in [(JSON, json!(items).to_string()), (NDJSON, lines(&items))] {
        let reply = fixture.post(content_type, body).await;
        let results = reply.accepted()["results"].as_array().unwrap();
        let offsets: Vec<_> = results
            .iter()
            .map(|item| item["offset"].as_i64().unwrap())
            .collect();
        assert!(offsets.is_sorted(), "one debit account, one partition");
        assert_eq!(offsets.len(), 500);
    }
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_id_twice() {
    let fixture = Fixture::new().await;
    let keyed = [("content-type", JSON), ("idempotency-key", "order-1")];
    for _ in 0..2 {
        let reply = fixture.send(&keyed, without_id().to_string()).await;
        let expected = ids::derive("shop", &["order-1"]).to_string();
        assert_eq!(reply.accepted()["id"], expected);
    }
    let reply = fixture.send(&keyed, example().to_string()).await;
    assert_eq!(reply.accepted()["id"], example()["id"], "the id counts");
    fixture
        .post(JSON, without_id().to_string())
        .await
        .expect(422, "missing_id");

    let array = json!([example()]).to_string();
    fixture
        .send(&keyed, array)
        .await
        .expect(400, "idempotency_key_not_allowed");
    let ndjson = [("content-type", NDJSON), ("idempotency-key", "order-1")];
    let reply = fixture.send(&ndjson, example().to_string()).await;
    reply.expect(400, "idempotency_key_not_allowed");
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    for bad in ["", "a b", &too_long, "\u{e9}"] {
        let headers = [("content-type", JSON), ("idempotency-key", bad)];
        let reply = fixture.send(&headers, without_id().to_string()).await;
        reply.expect(400, "invalid_idempotency_key");
    }
    let twice = [keyed[0], keyed[1], ("idempotency-key", "order-2")];
    fixture
        .send(&twice, without_id().to_string())
        .await
        .expect(400, "invalid_idempotency_key");
    let headers = [("content-type", JSON), ("idempotency-key", &longest)];
    fixture
        .send(&headers, without_id().to_string())
        .await
        .accepted();
}

#[tokio::test]
async fn other_methods_and_paths_are_problems() {
    let fixture = Fixture::new().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        let path = "/v1/transactions";
        let reply = send(&fixture.gateway, method, path, &[], Body::empty()).await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(reply.headers["allow"], "POST");
        assert_eq!(reply.headers["content-type"], "application/problem+json");
    }
    let reply = send(
        &fixture.gateway,
        Method::GET,
        "/nothing",
        &[],
        Body::empty(),
    )
    .await;
    reply.expect(404, "not_found");
}

#[tokio::test]
async fn the_document_describes_what_is_served() {
    let fixture = Fixture::new().await;
    let reply = send(
        &fixture.gateway,
        Method::GET,
        "/openapi.json",
        &[],
        Body::empty(),
    )
    .await;
    assert_eq!(reply.status, StatusCode::OK);
    let document = reply.body;
    assert_eq!(document, serde_json::to_value(openapi()).unwrap());
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{document}"
    );
    let schema = &document["components"]["schemas"]["Transaction"];
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["amount"]["minimum"], 1);
    assert_eq!(
        schema["properties"]["amount"]["maximum"],
        1_000_000_000_000_000_i64
    );
    assert_eq!(schema["properties"]["occurred_at"]["format"], "date-time");
    assert_eq!(schema["properties"]["id"]["type"], "string");
    let currencies = schema["properties"]["currency"]["enum"].as_array().unwrap();
    assert!(currencies.contains(&"EUR".into()) && currencies.len() > 150);
    let required = schema["required"].as_array().unwrap();
    assert_eq!(required.len(), 7, "{required:?}");
    assert_eq!(schema["example"], example());

    let post = &document["paths"]["/v1/transactions"]["post"];
    assert_eq!(post["parameters"][0]["name"], "Idempotency-Key");
    assert_eq!(post["parameters"][0]["in"], "header");
    let content = post["requestBody"]["content"].as_object().unwrap();
    let types: Vec<_> = content.keys().collect();
    assert_eq!(types, [JSON, "application/ndjson", NDJSON]);
    fixture
        .post(JSON, content[JSON]["example"].to_string())
        .await
        .accepted();
    let items = content[NDJSON]["example"].as_array().unwrap();
    fixture.post(NDJSON, lines(items)).await.accepted();
    for status in [
        "202", "207", "400", "405", "408", "413", "415", "422", "429", "500", "503",
    ] {
        let content = post["responses"][status]["content"].as_object();
        let expected = if status.starts_with('2') {
            JSON
        } else {
            "application/problem+json"
        };
        assert!(
            content.is_some_and(|content| content.contains_key(expected)),
            "{status}"
        );
    }
}
