//! The HTTP services as their clients see them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Replica, until};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const PROBLEM: &str = "application/problem+json";

/// Where transactions are handed in.
pub const TRANSACTIONS: &str = "/v1/transactions";

/// Longer than any answer takes, one that waits for Kafka in vain too.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A replica that serves HTTP to clients.
pub struct Service {
    pub replica: Replica,
    pub http: Http,
}

impl Service {
    /// Waits until its address is known; `name` is the service's in its log.
    pub async fn of(mut replica: Replica, name: &str) -> Self {
        let before = format!("{name}: http://");
        let address = until("the service's address is printed", async || {
            let log = replica.log();
            assert!(replica.process().is_running(), "the service ended: {log}");
            let (_, rest) = log.split_once(&before)?;
            let (address, _) = rest.split_once('/')?;
            Some(address.parse().unwrap())
        })
        .await;
        Self {
            replica,
            http: Http::at(address),
        }
    }
}

/// A client of one service, which keeps its connections.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    pub address: SocketAddr,
}

impl Http {
    pub fn at(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, address }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    /// Hands in transactions.
    pub async fn post(&self, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let headers = [("content-type", content_type)];
        self.send(Method::POST, TRANSACTIONS, &headers, body).await
    }

    /// Hands in one object with an `Idempotency-Key`.
    pub async fn post_with_key(&self, key: &str, body: String) -> Answer {
        let headers = [("content-type", JSON), ("idempotency-key", key)];
        self.send(Method::POST, TRANSACTIONS, &headers, body).await
    }

    /// Any request; it must be answered.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let uri = format!("http://{}{path}", self.address);
        let what = format!("{method} {uri}");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = async {
            let response = self.client.request(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8(body.into()).unwrap(),
            }
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        answer.unwrap_or_else(|_| panic!("no answer to {what}"))
    }

    /// A connection that says only what the test says.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has begun to send NDJSON in chunks.
    pub async fn begin_stream(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let head = format!(
            "POST {TRANSACTIONS} HTTP/1.1\r\nhost: it\r\ncontent-type: {NDJSON}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

/// Sends text as one chunk of a body; the empty one ends it.
pub async fn send_chunk(stream: &mut TcpStream, text: &str) {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.unwrap();
}

/// Status and body of the only answer on a connection.
pub async fn only_answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    let read = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
    read.expect("the answer comes and the connection ends")
        .unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// Fails the test unless this is the status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A header; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails the test unless this is a problem document of its own status. Gives its code and field.
    pub fn problem(&self) -> (String, Option<String>) {
        assert_eq!(self.header("content-type"), PROBLEM, "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        for text in ["title", "detail"] {
            let text = problem[text].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        let field = problem["field"].as_str().map(ToOwned::to_owned);
        (problem["code"].as_str().expect("a code").to_owned(), field)
    }
}
