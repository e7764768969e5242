//! The connections at work, and what they measured.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::sleep_until;

use crate::cli::Cli;
use crate::client::Client;
use crate::load::Load;
use crate::posted::Posted;
use crate::record::{Counts, Percentiles, Record, histogram};

/// Connections to the query API.
const LOOKERS: usize = 32;
/// Requests that wait for a looker. Beyond, one is not looked for, and that is counted.
const LOOKS_MAX: usize = 1_024;
/// A request that is so late is not sent: the services are not able to keep up.
const LATE_MAX: Duration = Duration::from_secs(5);
/// How long the query API may wait for the ledger.
const LOOK_WAIT_MS: u32 = 10_000;

/// What is measured; latencies are in microseconds.
struct Measured {
    counts: Counts,
    /// The time before the measured one included.
    all_accepted: u64,
    accept: Histogram<u64>,
    visible: Histogram<u64>,
    last_answer: Instant,
}

/// What all connections share; they are tasks of one thread.
struct Shared {
    cli: Cli,
    load: Load,
    start: Instant,
    next: RefCell<u64>,
    measured: RefCell<Measured>,
}

/// A transaction that is accepted and shall be looked for.
struct Look {
    request: u64,
    item: Item,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    partition: i32,
    offset: i64,
}

#[derive(Deserialize)]
struct Batch {
    accepted: u64,
    #[serde(default)]
    results: Vec<serde_json::Value>,
}

/// Offers the load to its end and waits for all answers.
pub async fn run(cli: Cli) -> anyhow::Result<Record> {
    let mut posted = Posted::before(&cli.database_url).await?;
    let mut posters = Vec::new();
    for _ in 0..cli.connections {
        posters.push(Client::connect(cli.gateway).await?);
    }
    let mut lookers = Vec::new();
    for _ in 0..LOOKERS {
        lookers.push(Client::connect(cli.query).await?);
    }
    let start = Instant::now();
    let shared = Rc::new(Shared {
        load: Load::new(&cli),
        cli,
        start,
        next: RefCell::new(0),
        measured: RefCell::new(Measured {
            counts: Counts::default(),
            all_accepted: 0,
            accept: histogram()?,
            visible: histogram()?,
            last_answer: start,
        }),
    });
    let tasks = LocalSet::new();
    let (looks, waiting) = mpsc::channel(LOOKS_MAX);
    let waiting = Rc::new(tokio::sync::Mutex::new(waiting));
    for poster in posters {
        tasks.spawn_local(post_all(Rc::clone(&shared), poster, looks.clone()));
    }
    for looker in lookers {
        tasks.spawn_local(look_all(Rc::clone(&shared), looker, Rc::clone(&waiting)));
    }
    drop(looks);
    tasks.await;
    let shared = Rc::into_inner(shared).context("a task has not ended")?;
    let measured = shared.measured.into_inner();
    let begun = start + Duration::from_secs(shared.cli.warmup.into());
    let seconds = measured
        .last_answer
        .duration_since(begun)
        .as_secs_f64()
        .max(shared.cli.seconds.into());
    let all_posted = posted.wait_for(measured.all_accepted).await?;
    Ok(Record::new(
        &shared.cli,
        measured.counts,
        seconds,
        (measured.all_accepted, all_posted),
        [
            Percentiles::of(&measured.accept),
            Percentiles::of(&measured.visible),
        ],
    ))
}

/// Takes the next request that is due, whenever this connection is free.
async fn post_all(shared: Rc<Shared>, mut client: Client, looks: mpsc::Sender<Look>) {
    loop {
        let request = shared.next.replace_with(|next| *next + 1);
        if request >= shared.load.requests {
            return;
        }
        let due = shared.start + shared.load.due(request);
        sleep_until(due.into()).await;
        let is_measured = shared.load.is_measured(request);
        let items = u64::from(shared.cli.items);
        if due.elapsed() > LATE_MAX {
            shared.count(is_measured, |counts| counts.not_sent += items);
            continue;
        }
        let answer = post(&shared, &mut client, request).await;
        let took = due.elapsed();
        let (accepted, item) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                shared.count(is_measured, |counts| counts.fail(items, &error));
                match Client::connect(shared.cli.gateway).await {
                    Ok(again) => client = again,
                    Err(_) => return,
                }
                continue;
            }
        };
        shared.measured.borrow_mut().all_accepted += accepted;
        shared.count(is_measured, |counts| {
            counts.accepted += accepted;
            counts.refused += items.saturating_sub(accepted);
        });
        if is_measured {
            let mut measured = shared.measured.borrow_mut();
            measured.accept.saturating_record(micros(took));
            measured.last_answer = Instant::now();
        }
        if let Some(item) = item
            && looks.try_send(Look { request, item }).is_err()
        {
            shared.count(is_measured, |counts| counts.not_looked_for += 1);
        }
    }
}

/// How many of a request are accepted, and the last of them where it shall be looked for.
async fn post(
    shared: &Shared,
    client: &mut Client,
    request: u64,
) -> anyhow::Result<(u64, Option<Item>)> {
    let body = shared.load.body(request);
    let content_type = shared.cli.format.content_type();
    let (status, answer) = client.post("/v1/transactions", content_type, body).await?;
    if status != StatusCode::ACCEPTED {
        bail!("the gateway answers {status}");
    }
    let is_looked_for = request.is_multiple_of(shared.cli.look_every.into());
    if shared.cli.items == 1 && shared.cli.format == crate::cli::Format::Json {
        let item = is_looked_for.then(|| serde_json::from_slice(&answer));
        return Ok((1, item.transpose()?));
    }
    let mut batch: Batch = serde_json::from_slice(&answer)?;
    let last = batch.results.pop().filter(|_| is_looked_for);
    let item = last.map(serde_json::from_value).transpose()?;
    Ok((batch.accepted, item))
}

async fn look_all(
    shared: Rc<Shared>,
    mut client: Client,
    waiting: Rc<tokio::sync::Mutex<mpsc::Receiver<Look>>>,
) {
    loop {
        let look = waiting.lock().await.recv().await;
        let Some(Look { request, item }) = look else {
            return;
        };
        let Item {
            id,
            partition,
            offset,
        } = item;
        let path =
            format!("/v1/transactions/{id}?at_least={partition}:{offset}&wait_ms={LOOK_WAIT_MS}");
        let answer = client.get(&path).await;
        let took = (shared.start + shared.load.due(request)).elapsed();
        let is_measured = shared.load.is_measured(request);
        match answer {
            Ok((StatusCode::OK, _)) if is_measured => {
                let mut measured = shared.measured.borrow_mut();
                measured.visible.saturating_record(micros(took));
            }
            Ok((StatusCode::OK, _)) => {}
            Ok(_) => shared.count(is_measured, |counts| counts.not_found += 1),
            Err(_) => {
                shared.count(is_measured, |counts| counts.not_found += 1);
                match Client::connect(shared.cli.query).await {
                    Ok(again) => client = again,
                    Err(_) => return,
                }
            }
        }
    }
}

impl Shared {
    fn count(&self, is_measured: bool, add: impl FnOnce(&mut Counts)) {
        if is_measured {
            add(&mut self.measured.borrow_mut().counts);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
