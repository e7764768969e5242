//! The router against librdkafka's in-process broker.

mod answers;
mod bounds;
mod outages;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use millrace_publisher::{Error, Settings};
use millrace_schemas::ids;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::openapi::example;
use crate::{Gateway, Limits, Options, openapi, router};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
/// Far longer than anything here takes; only a defect reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    cluster: Cluster,
    gateway: Gateway,
    _tasks: JoinSet<()>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 3, 1).unwrap();
        let mut publisher = Settings::new(cluster.bootstrap_servers(), "t");
        publisher
            .properties
            .push(("reconnect.backoff.max.ms".into(), "200".into()));
        let (gateway, tasks) = Gateway::start(Options { publisher, limits }).await.unwrap();
        assert!(gateway.readiness().0, "{:?}", gateway.readiness());
        Self {
            cluster,
            gateway,
            _tasks: tasks,
        }
    }

    async fn post(&self, content_type: &str, body: impl Into<Body>) -> Reply {
        self.send(&[("content-type", content_type)], body).await
    }

    async fn send(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        send(
            &self.gateway,
            Method::POST,
            "/v1/transactions",
            headers,
            body.into(),
        )
        .await
    }

    /// A client of its own, whose request goes on beside the test.
    fn post_beside(&self, content_type: &'static str, body: impl Into<Body>) -> JoinSet<Reply> {
        let (gateway, body) = (self.gateway.clone(), body.into());
        let mut client = JoinSet::new();
        client.spawn(async move {
            let headers = [("content-type", content_type)];
            send(&gateway, Method::POST, "/v1/transactions", &headers, body).await
        });
        client
    }

    /// Posts until Kafka takes it again.
    async fn is_taken_again(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.post(JSON, example().to_string()).await.status != StatusCode::ACCEPTED {
            assert!(Instant::now() < deadline, "{:?}", self.gateway.readiness());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// How many records Kafka has taken.
    fn acknowledged(&self) -> u64 {
        let link = self.gateway.0.kafka.admit().unwrap();
        link.publisher.totals().acknowledged
    }

    fn free(&self) -> usize {
        self.gateway.0.pending.available_permits()
    }

    /// Everything that requests may hold is free again.
    async fn assert_nothing_held(&self) {
        timeout(PATIENCE, self.gateway.drain()).await.unwrap();
        assert_eq!(self.free(), self.gateway.0.limits.pending_items_max);
        assert_eq!(self.gateway.0.memory.used(), 0);
    }
}

async fn send(
    gateway: &Gateway,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).unwrap();
    let router = millrace_http::with_fallbacks(router(gateway.clone()));
    let response = router.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if !head.status.is_success() && body != Value::Null {
        assert_eq!(head.headers["content-type"], "application/problem+json");
        assert_eq!(body["status"], head.status.as_u16());
    }
    Reply {
        status: head.status,
        headers: head.headers,
        body,
    }
}

impl Reply {
    #[track_caller]
    fn expect(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["code"]),
            (status, &code.into()),
            "{}",
            self.body
        );
    }

    #[track_caller]
    fn accepted(&self) -> &Value {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{}", self.body);
        &self.body
    }
}

fn numbered(number: u128) -> Value {
    let mut item = example();
    item["id"] = Uuid::from_u128(number + 1).to_string().into();
    item
}

fn with(field: &str, value: Value) -> Value {
    let mut item = example();
    item[field] = value;
    item
}

fn without_id() -> Value {
    let mut item = example();
    item.as_object_mut().unwrap().remove("id");
    item
}

fn lines(items: &[Value]) -> String {
    let lines: Vec<_> = items.iter().map(Value::to_string).collect();
    lines.join("\n") + "\n"
}

/// A body in chunks that never ends.
fn unfinished(chunks: Vec<Bytes>) -> Body {
    let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
    Body::from_stream(chunks.chain(stream::pending()))
}

/// Looks again and again; a defect ends it.
async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come about");
        sleep(Duration::from_millis(5)).await;
    }
}
