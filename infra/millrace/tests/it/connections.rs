//! Clients that are slow, silent, many or gone do no harm to others.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::{Http, JSON, NDJSON, TRANSACTIONS, only_answer, send_chunk};
use crate::oracle::assert_all_posted_in_order;
use crate::place::Place;
use crate::process::{PATIENCE, Replica, until};
use crate::records::{json, lines, transfer};

/// Connections that ask for nothing.
const IDLE: usize = 2_000;

/// What all of them together may cost a service, with what the load beside them leaves: 40 KiB each.
/// Measured: 24.
const IDLE_BYTES_MAX: u64 = 40 * 1024 * IDLE as u64;

/// What a service with them may take in all: a server of clients, not of memory.
const RESIDENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Descriptors that the test needs for its ends, and a service for its own.
const FILES: u64 = 4_096;

/// More bytes than the seconds that the head of a request may take.
const SLOW_HEAD: &str = "POST /v1/transactions HTTP/1.1\r\nhost: it\r\nx: ";

/// Between two bytes of a slow client.
const SLOWLY: Duration = Duration::from_secs(1);

fn transaction(number: u128) -> serde_json::Value {
    json(&transfer(number, "a", "b", 1))
}

/// Services that are started after this inherit the limit.
fn allow_files() {
    let limits = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= FILES);
    assert!(
        enough(limits.maximum),
        "this test needs ulimit -Hn {FILES} or more: {limits:?}"
    );
    if !enough(limits.current) {
        let raised = Rlimit {
            current: Some(FILES),
            ..limits
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

/// The resident memory of a service.
fn resident_bytes(service: &Replica) -> u64 {
    let status = format!("/proc/{}/status", service.pid());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .unwrap();
    kib.trim().parse::<u64>().unwrap() * 1024
}

/// Half of them say nothing at all, the others begin a request and then say nothing more.
async fn idle_connections(http: &Http) -> Vec<TcpStream> {
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut stream = http.connect().await;
        if number % 2 == 0 {
            let head = format!("POST {TRANSACTIONS} HTTP/1.1\r\nhost: it\r\nx-number: {number}");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        idle.push(stream);
    }
    idle
}

/// Sends a byte a second. Says how many the service took before it had enough.
async fn trickle(stream: &mut TcpStream, text: &str) -> usize {
    for (taken, byte) in text.bytes().enumerate() {
        let mut answer = [0; 1];
        let pause = tokio::time::timeout(SLOWLY, stream.peek(&mut answer));
        if pause.await.is_ok() || stream.write_all(&[byte]).await.is_err() {
            return taken;
        }
    }
    text.len()
}

/// Waits until the service has closed a connection.
async fn closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    // Whether it ends or is reset is the same here.
    let _ = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an idle connection is closed");
}

#[tokio::test]
async fn slow_and_silent_clients_keep_nobody_waiting_and_cost_little() {
    allow_files();
    let place = Place::new("idle", 1).await;
    let gateway = place.service("gateway").await;
    let query = place.service("query").await;
    let ledger = place.ledger(1).await;
    ledger.becomes_ready().await;
    gateway
        .http
        .post(JSON, transaction(0).to_string())
        .await
        .expect(202);
    place.drained().await;
    query.http.get("/v1/accounts/b").await.expect(200);

    let before = [&gateway.replica, &query.replica].map(resident_bytes);
    let (at_gateway, at_query) = (
        idle_connections(&gateway.http).await,
        idle_connections(&query.http).await,
    );
    let slow_head = async {
        let mut stream = gateway.http.connect().await;
        trickle(&mut stream, SLOW_HEAD).await
    };
    let slow_body = async {
        let mut stream = gateway.http.begin_stream().await;
        let line = lines(&[transaction(1)]);
        let (slowly, at_once) = line.split_at(20);
        let size = format!("{:x}\r\n", line.len());
        stream.write_all(size.as_bytes()).await.unwrap();
        trickle(&mut stream, slowly).await;
        let rest = format!("{at_once}\r\n0\r\n\r\n");
        stream.write_all(rest.as_bytes()).await.unwrap();
        only_answer(stream).await
    };
    let others = async {
        for number in 2..200 {
            gateway
                .http
                .post(JSON, transaction(number).to_string())
                .await
                .expect(202);
            query.http.get("/v1/accounts/b").await.expect(200);
        }
        [&gateway.replica, &query.replica].map(resident_bytes)
    };
    let (head_taken, (status, body), after) = tokio::join!(slow_head, slow_body, others);
    assert!(
        head_taken < SLOW_HEAD.len(),
        "a head that takes too long ends the connection"
    );
    assert_eq!(status, 202, "slow, but never silent for long: {body}");
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            after < before + IDLE_BYTES_MAX,
            "{before} bytes before, {after} with the connections"
        );
        assert!(after < RESIDENT_BYTES_MAX, "{after} bytes");
    }
    for stream in at_gateway.into_iter().chain(at_query) {
        closed(stream).await;
    }
    place.drained().await;
    assert_eq!(assert_all_posted_in_order(&place).await, 200);
    for replica in [gateway.replica, query.replica, ledger] {
        replica.stop().await.expect(0);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_whole_lines_only() {
    let place = Place::new("gone", 1).await;
    let gateway = place.service("gateway").await;
    let items: Vec<_> = (0..100).map(transaction).collect();
    let text = lines(&items);
    for end in [text.len() / 4, text.len() / 2, text.len() - 2] {
        let mut stream = gateway.http.begin_stream().await;
        send_chunk(&mut stream, &text[..end]).await;
        drop(stream);
    }
    // Also one that announces more than it sends, and one that does not wait for its answer.
    let mut stream = gateway.http.connect().await;
    let head = format!(
        "POST {TRANSACTIONS} HTTP/1.1\r\nhost: it\r\ncontent-type: {JSON}\r\ncontent-length: 9999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
        .write_all(transaction(1_000).to_string().as_bytes())
        .await
        .unwrap();
    drop(stream);
    let mut stream = gateway.http.begin_stream().await;
    send_chunk(&mut stream, &text).await;
    send_chunk(&mut stream, "").await;
    drop(stream);

    let answer = gateway.http.post(NDJSON, text).await.expect(202);
    assert_eq!(answer.json()["accepted"], 100);
    until("nothing is held for those who went away", async || {
        let gauges = [
            "millrace_gateway_pending_items",
            "millrace_gateway_buffered_bytes",
        ];
        let values = gauges.map(|name| gateway.replica.metric(name));
        values.iter().all(|value| value.abs() < 0.5).then_some(())
    })
    .await;
    let log = gateway.replica.stop().await.expect(0).err;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    let ledger = place.ledger(1).await;
    place.drained().await;
    let query = "select count(*) from reports.transactions";
    assert_eq!(
        place.number(query).await,
        100,
        "each once, and nothing of half a line"
    );
    let query =
        "select sum(posted + duplicate)::bigint - sum(records)::bigint from reports.conservation";
    assert_eq!(place.number(query).await, 0, "nothing else came");
    place.verify().await;
    ledger.stop().await.expect(0);
}

/// Sends all of its body before it reads, as many clients do.
async fn answer_after_sending(http: &Http, content_type: &str, body: &str) -> (u16, String) {
    let mut stream = http.connect().await;
    let head = format!(
        "POST {TRANSACTIONS} HTTP/1.1\r\nhost: it\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    only_answer(stream).await
}

#[tokio::test]
async fn who_is_refused_early_still_gets_the_answer() {
    let place = Place::new("refused", 1).await;
    let gateway = place.service("gateway").await;
    let large = " ".repeat(3_000_000);
    let many = "{}\n".repeat(1_000_000);
    for _ in 0..20 {
        for (content_type, body, code) in [
            (JSON, &large, "body_too_large"),
            (NDJSON, &many, "too_many_items"),
            ("text/plain", &large, "unsupported_media_type"),
        ] {
            let (_, answer) = answer_after_sending(&gateway.http, content_type, body).await;
            assert!(answer.contains(code), "{code}: {answer}");
        }
    }
}
