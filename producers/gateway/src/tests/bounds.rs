//! Size, time, memory, the queue; clients that go away.

use super::*;

#[tokio::test]
async fn bodies_are_bounded() {
    let fixture = Fixture::with(Limits {
        body_json_bytes: 1000,
        body_ndjson_bytes: 4000,
        items_max: 5,
        buffered_bytes_max: 5000,
        ..Limits::default()
    })
    .await;
    let spaces = |count| " ".repeat(count);
    fixture
        .post(JSON, spaces(1001))
        .await
        .expect(413, "body_too_large");
    let chunks = stream::iter((0..11).map(|_| Ok::<_, Infallible>(Bytes::from(" ".repeat(100)))));
    fixture
        .post(JSON, Body::from_stream(chunks))
        .await
        .expect(413, "body_too_large");
    fixture
        .post(NDJSON, spaces(4001))
        .await
        .expect(413, "body_too_large");

    let items: Vec<_> = (0..6).map(|_| json!(7)).collect();
    fixture
        .post(JSON, json!(items).to_string())
        .await
        .expect(413, "too_many_items");
    let items: Vec<_> = (0..6).map(numbered).collect();
    let reply = fixture.post(NDJSON, lines(&items)).await;
    reply.expect(413, "too_many_items");
    assert_eq!(
        (
            &reply.body["accepted"],
            reply.body["results"].as_array().unwrap().len()
        ),
        (&5.into(), 5)
    );
    let long_line = format!("{}\n{}{}\n", numbered(0), spaces(1000), numbered(1));
    for body in [long_line.clone(), long_line.trim_end().to_owned()] {
        let reply = fixture.post(NDJSON, body).await;
        reply.expect(413, "body_too_large");
        assert_eq!(reply.body["accepted"], 1);
    }
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn memory_for_bodies_is_bounded_over_all_requests() {
    let fixture = Fixture::with(Limits {
        body_json_bytes: 1000,
        buffered_bytes_max: 1000,
        ..Limits::default()
    })
    .await;
    let body = unfinished(vec![" ".repeat(800).into()]);
    let mut others = fixture.post_beside(JSON, body);
    until(|| fixture.gateway.0.memory.used() == 800).await;
    let reply = fixture.post(JSON, example().to_string()).await;
    reply.expect(429, "busy");
    assert_eq!(reply.headers["retry-after"], "1");
    others.shutdown().await;
    fixture.post(JSON, example().to_string()).await.accepted();
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn a_slow_body_times_out() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let fixture = Fixture::with(limits).await;
    let reply = fixture.post(JSON, unfinished(vec!["{".into()])).await;
    reply.expect(408, "body_timeout");
    let reply = fixture
        .post(NDJSON, unfinished(vec![lines(&[numbered(0)]).into()]))
        .await;
    reply.expect(408, "body_timeout");
    assert_eq!(reply.body["results"][0]["status"], "accepted");
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn a_body_that_dribbles_times_out_too() {
    let fixture = Fixture::with(Limits {
        request_timeout: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let dribble = stream::unfold((), async |()| {
        sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    let reply = fixture
        .post(JSON, Body::from_stream(Box::pin(dribble)))
        .await;
    reply.expect(408, "body_timeout");
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told() {
    let fixture = Fixture::new().await;
    let chunks = [
        Ok(Bytes::from(lines(&[numbered(0)]))),
        Err(std::io::Error::other("gone")),
    ];
    let reply = fixture
        .post(NDJSON, Body::from_stream(stream::iter(chunks)))
        .await;
    reply.expect(400, "body_incomplete");
    assert_eq!(reply.body["accepted"], 1);
}

#[tokio::test]
async fn a_client_that_goes_away_holds_nothing() {
    let fixture = Fixture::new().await;
    let body = unfinished(vec![
        lines(&[numbered(0), numbered(1)]).into(),
        "{\"id\":".into(),
    ]);
    let mut clients = fixture.post_beside(NDJSON, body);
    until(|| fixture.acknowledged() == 2).await;
    assert!(fixture.gateway.0.memory.used() > 0);
    clients.shutdown().await;
    fixture.assert_nothing_held().await;
    fixture.post(JSON, example().to_string()).await.accepted();
}

#[tokio::test]
async fn a_full_queue_answers_429() {
    let fixture = Fixture::with(Limits {
        items_max: 2,
        pending_items_max: 2,
        ..Limits::default()
    })
    .await;
    fixture.cluster.broker_down(-1).unwrap();
    let body = Body::from(json!([numbered(0), numbered(1)]).to_string());
    let mut clients = fixture.post_beside(JSON, body);
    until(|| fixture.free() == 0).await;
    for (content_type, body) in [
        (JSON, example().to_string()),
        (JSON, json!([example()]).to_string()),
        (NDJSON, lines(&[example()])),
    ] {
        let reply = fixture.post(content_type, body).await;
        reply.expect(429, "queue_full");
        assert_eq!(reply.headers["retry-after"], "1");
    }
    fixture.cluster.broker_up(-1).unwrap();
    clients.join_next().await.unwrap().unwrap().accepted();
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn more_lines_than_the_queue_holds_wait_for_room() {
    let fixture = Fixture::with(Limits {
        items_max: 3,
        pending_items_max: 3,
        ..Limits::default()
    })
    .await;
    let text = Bytes::from(lines(&[numbered(0), numbered(1), numbered(2)]));
    // All three have begun, so all permits are taken, before the first line comes.
    let begun = Arc::new(Barrier::new(3));
    let body = || {
        let (begun, text) = (Arc::clone(&begun), text.clone());
        Body::from_stream(stream::once(async move {
            begun.wait().await;
            Ok::<_, Infallible>(text)
        }))
    };
    let replies = tokio::join!(
        fixture.post(NDJSON, body()),
        fixture.post(NDJSON, body()),
        fixture.post(NDJSON, body())
    );
    for reply in [replies.0, replies.1, replies.2] {
        assert_eq!(reply.accepted()["accepted"], 3);
    }
    fixture.assert_nothing_held().await;
}
