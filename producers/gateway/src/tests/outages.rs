//! Kafka absent, away, broken, back again.

use super::*;

#[tokio::test]
async fn an_outage_is_answered_503_in_time_and_passes() {
    let fixture = Fixture::with(Limits {
        accept_timeout: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    fixture.cluster.broker_down(-1).unwrap();
    let began = Instant::now();
    let reply = fixture
        .post(JSON, json!([numbered(0), json!(7)]).to_string())
        .await;
    reply.expect(503, "kafka_unavailable");
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(reply.body["results"][0]["status"], "unacknowledged");
    assert_eq!(reply.body["results"][1]["code"], "not_an_object");
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(!fixture.gateway.readiness().0);

    let at_once = fixture.post(NDJSON, unfinished(vec![])).await;
    at_once.expect(503, "kafka_unavailable");

    fixture.cluster.broker_up(-1).unwrap();
    fixture.is_taken_again().await;
    assert!(fixture.gateway.readiness().0);
    fixture.post(JSON, example().to_string()).await.accepted();
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn a_broken_producer_is_replaced() {
    let fixture = Fixture::new().await;
    let fault = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    fixture
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[fault]);
    fixture
        .post(JSON, example().to_string())
        .await
        .expect(503, "kafka_unavailable");
    fixture.is_taken_again().await;
    fixture.assert_nothing_held().await;
}

#[tokio::test]
async fn wrong_settings_end_the_start_and_an_absent_kafka_does_not() {
    let options = |brokers: &str, limits| Options {
        publisher: Settings::new(brokers, "t"),
        limits,
    };
    let mut wrong = options("127.0.0.1:1", Limits::default());
    wrong.publisher.properties.push(("acks".into(), "0".into()));
    let few = Limits {
        pending_items_max: 1,
        ..Limits::default()
    };
    for options in [
        wrong,
        options("", Limits::default()),
        options("127.0.0.1:1", few),
    ] {
        let error = Gateway::start(options).await.err().unwrap();
        assert!(matches!(error, Error::Settings(_)), "{error:?}");
    }
    let absent = options("127.0.0.1:1", Limits::default());
    let (gateway, _tasks) = Gateway::start(absent).await.unwrap();
    let (ready, detail) = gateway.readiness();
    assert!(!ready && detail["connected"] == false, "{detail}");
    let body = Body::from(example().to_string());
    let headers = [("content-type", JSON)];
    let reply = send(&gateway, Method::POST, "/v1/transactions", &headers, body).await;
    reply.expect(503, "kafka_unavailable");
}

#[tokio::test]
async fn a_topic_that_comes_later_is_found() {
    let cluster: Cluster = MockCluster::new(1).unwrap();
    let publisher = Settings::new(cluster.bootstrap_servers(), "t");
    let limits = Limits::default();
    let (gateway, _tasks) = Gateway::start(Options { publisher, limits }).await.unwrap();
    assert!(!gateway.readiness().0);
    cluster.create_topic("t", 3, 1).unwrap();
    until(|| gateway.readiness().0).await;
}
