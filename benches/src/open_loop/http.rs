//! Posting to the gateway: each connection takes the next request that is due, whenever it is free.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use hyper::StatusCode;
use hyper::body::Bytes;
use millrace_benches::client::Client;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::case::Shape;
use crate::look::{Item, Look, Looks};
use crate::offer::{Answer, Offer};

/// The answer to a request of several transactions.
#[derive(Deserialize)]
struct Batch {
    accepted: u64,
    #[serde(default)]
    results: Vec<serde_json::Value>,
}

/// One connection at work.
struct Poster {
    offer: Arc<Offer>,
    gateway: SocketAddr,
    client: Client,
    looks: Looks,
    /// The next request that no connection has taken.
    next: Arc<AtomicU64>,
}

/// Opens the connections.
pub async fn connect(gateway: SocketAddr, connections: u32) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(gateway).await?);
    }
    Ok(clients)
}

/// Posts everything.
pub async fn post_all(
    offer: &Arc<Offer>,
    gateway: SocketAddr,
    clients: Vec<Client>,
    looks: &Looks,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut posting = JoinSet::new();
    for client in clients {
        let poster = Poster {
            offer: Arc::clone(offer),
            gateway,
            client,
            looks: looks.clone(),
            next: Arc::clone(&next),
        };
        posting.spawn(poster.run());
    }
    while let Some(ended) = posting.join_next().await {
        ended??;
    }
    Ok(())
}

impl Poster {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let request = self.next.fetch_add(1, Ordering::Relaxed);
            if request >= self.offer.load.requests {
                return Ok(());
            }
            if self.offer.wait(request).await {
                self.post(request).await?;
            }
        }
    }

    /// Fails only where no new connection can be had after a failure.
    async fn post(&mut self, request: u64) -> anyhow::Result<()> {
        let body = self.offer.load.body(request);
        let content_type = self.offer.load.shape().content_type();
        let posted = self.client.post("/v1/transactions", content_type, body);
        let answer = match posted.await {
            Ok((StatusCode::ACCEPTED | StatusCode::MULTI_STATUS, body)) => {
                self.accepted(request, &body)
            }
            Ok((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _)) => {
                Answer::TurnedAway
            }
            Ok((status, _)) => Answer::Failed(anyhow!("the gateway answers {status}")),
            Err(error) => {
                let again = Client::connect(self.gateway).await;
                self.client = again.context("connecting again after a failure")?;
                Answer::Failed(error)
            }
        };
        self.offer.answered(request, answer);
        Ok(())
    }

    /// Its last transaction is the one that is looked for.
    fn accepted(&self, request: u64, body: &Bytes) -> Answer {
        let answered = Instant::now();
        match receipts(self.offer.load.shape(), body) {
            Ok((accepted, last)) => {
                if let Some(item) = last
                    && self.offer.load.is_looked_for(request)
                {
                    let look = Look {
                        request,
                        answered,
                        item,
                    };
                    self.offer.look_for(&self.looks, look);
                }
                Answer::Accepted(accepted)
            }
            Err(error) => Answer::Failed(error),
        }
    }
}

/// How many are accepted, and the last of them if it is.
fn receipts(shape: Shape, body: &[u8]) -> anyhow::Result<(u64, Option<Item>)> {
    if shape == Shape::Single {
        return Ok((1, Some(serde_json::from_slice(body)?)));
    }
    let mut batch: Batch = serde_json::from_slice(body)?;
    let last = batch.results.pop();
    let last = last.and_then(|result| serde_json::from_value(result).ok());
    Ok((batch.accepted, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: &str = r#"{"status":"accepted","id":"0192f5a9-0c4d-7a11-8e52-6b7f3d2a9c10","partition":6,"offset":31}"#;

    #[test]
    fn receipts_are_read_from_either_answer() {
        let (accepted, item) = receipts(Shape::Single, RECEIPT.as_bytes()).unwrap();
        assert_eq!((accepted, item.unwrap().offset), (1, 31));
        let refused = r#"{"status":"rejected","code":"missing_field"}"#;
        let batch =
            |results: &str| format!(r#"{{"accepted":1,"rejected":1,"results":[{results}]}}"#);
        let good = batch(&format!("{refused},{RECEIPT}"));
        let (accepted, item) = receipts(Shape::Ndjson, good.as_bytes()).unwrap();
        assert_eq!((accepted, item.unwrap().partition), (1, 6));
        let bad = batch(&format!("{RECEIPT},{refused}"));
        let (accepted, item) = receipts(Shape::Array, bad.as_bytes()).unwrap();
        assert!(accepted == 1 && item.is_none());
        assert!(receipts(Shape::Single, b"{}").is_err());
    }
}
