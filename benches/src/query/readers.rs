//! The connections at work: each asks again as soon as it is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use hyper::StatusCode;
use millrace_benches::client::Client;
use millrace_benches::latency::{self, histogram};
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Keys};

/// Readers that work until they are stopped.
#[derive(Debug)]
pub struct Readers {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What they measured since they were last told to begin.
#[derive(Debug)]
pub struct Measured {
    /// Of the requests that were answered with 200.
    pub latency: Histogram<u64>,
    pub errors: u64,
    pub first_error: Option<String>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    keys: Arc<Keys>,
    query: SocketAddr,
    turn: AtomicU64,
    is_stopped: AtomicBool,
    measured: Mutex<Measured>,
}

impl Readers {
    /// Connects them and has them ask.
    pub async fn start(
        query: SocketAddr,
        connections: u32,
        endpoint: Endpoint,
        keys: &Arc<Keys>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            endpoint,
            keys: Arc::clone(keys),
            query,
            turn: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            measured: Mutex::new(Measured::none()),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let client = Client::connect(query).await?;
            tasks.spawn(read(Arc::clone(&shared), client));
        }
        Ok(Self { shared, tasks })
    }

    /// Gives what they measured so far, and begins anew.
    pub fn take(&self) -> Measured {
        std::mem::replace(&mut *self.shared.measured(), Measured::none())
    }

    /// Stops them.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Fails only where no new connection can be had after a failure.
async fn read(shared: Arc<Shared>, mut client: Client) -> anyhow::Result<()> {
    while !shared.is_stopped.load(Ordering::Relaxed) {
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let path = shared.endpoint.path(turn, &shared.keys);
        let asked = Instant::now();
        let answer = client.get(&path).await;
        let took = asked.elapsed();
        let mut error = None;
        match answer {
            Ok((StatusCode::OK, _)) => latency::record(&mut shared.measured().latency, took),
            Ok((status, _)) => error = Some(format!("{path}: {status}")),
            Err(failure) => {
                error = Some(format!("{path}: {failure:#}"));
                client = Client::connect(shared.query).await?;
            }
        }
        if let Some(error) = error {
            let mut measured = shared.measured();
            measured.errors += 1;
            measured.first_error.get_or_insert(error);
        }
    }
    Ok(())
}

impl Shared {
    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measured {
    /// Nothing: nobody reads.
    pub fn none() -> Self {
        Self {
            latency: histogram(),
            errors: 0,
            first_error: None,
        }
    }
}
