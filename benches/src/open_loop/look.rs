//! Looking for samples in the query API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use millrace_benches::client::Client;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::offer::Offer;

/// Connections to the query API: at 50 samples a second enough for those that wait ten seconds, so that
/// none waits for its looker, which would count as time until it is seen.
const LOOKERS: usize = 512;

/// Samples that wait for a looker. Beyond, one is not looked for, and that is counted.
pub const LOOKS_MAX: usize = 256;

/// How long the query API may wait for the ledger: its own limit.
const WAIT_MS: u32 = 10_000;

/// Where samples are handed in.
pub type Looks = mpsc::Sender<Look>;

type Waiting = Arc<Mutex<mpsc::Receiver<Look>>>;

/// A transaction that is accepted and shall be looked for.
#[derive(Debug)]
pub struct Look {
    pub request: u64,
    /// When it was accepted.
    pub answered: Instant,
    pub item: Item,
}

/// Its receipt.
#[derive(Debug, Deserialize)]
pub struct Item {
    pub id: String,
    pub partition: i32,
    pub offset: i64,
}

/// Opens the connections.
pub async fn connect(query: SocketAddr) -> anyhow::Result<Vec<(SocketAddr, Client)>> {
    let mut clients = Vec::new();
    for _ in 0..LOOKERS {
        clients.push((query, Client::connect(query).await?));
    }
    Ok(clients)
}

/// Starts looking; ends when no more can be handed in.
pub fn start(
    offer: &Arc<Offer>,
    clients: Vec<(SocketAddr, Client)>,
    waiting: mpsc::Receiver<Look>,
    looking: &mut JoinSet<()>,
) {
    let waiting = Arc::new(Mutex::new(waiting));
    for (query, client) in clients {
        looking.spawn(look_all(
            Arc::clone(offer),
            query,
            client,
            Arc::clone(&waiting),
        ));
    }
}

async fn look_all(offer: Arc<Offer>, query: SocketAddr, mut client: Client, waiting: Waiting) {
    while let Some(look) = next(&waiting).await {
        let answer = client.get(&look.item.path()).await;
        let is_seen = matches!(answer, Ok((StatusCode::OK, _)));
        offer.looked(look.request, look.answered, is_seen);
        if answer.is_err() {
            match Client::connect(query).await {
                Ok(again) => client = again,
                Err(_) => return,
            }
        }
    }
}

async fn next(waiting: &Waiting) -> Option<Look> {
    waiting.lock().await.recv().await
}

impl Item {
    fn path(&self) -> String {
        let Self {
            id,
            partition,
            offset,
        } = self;
        format!("/v1/transactions/{id}?at_least={partition}:{offset}&wait_ms={WAIT_MS}")
    }
}
