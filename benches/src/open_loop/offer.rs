//! One load, from its start to its last answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use millrace_benches::latency::{self, histogram};
use millrace_benches::results::say;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::case::{Case, Shape};
use crate::cli::Settings;
use crate::load::Load;
use crate::look::{self, LOOKS_MAX, Looks};
use crate::place::Place;
use crate::record::Counts;
use crate::{http, kafka};

/// A request that is so late is not sent: the services are not able to keep up.
const LATE_MAX: Duration = Duration::from_secs(5);

/// How often the person who waits hears of it.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);

/// What all tasks of a run share.
#[derive(Debug)]
pub struct Offer {
    /// What is due when.
    pub load: Load,
    start: Instant,
    measured: Mutex<Measured>,
}

/// What is measured; latencies are in microseconds.
#[derive(Debug)]
pub struct Measured {
    pub counts: Counts,
    /// The time before the measured one included.
    pub all_accepted: u64,
    /// The same of those that failed: they may be posted or not.
    pub all_failed: u64,
    /// From when a request was due to its answer.
    pub accept: Histogram<u64>,
    /// From when it was due until it was seen.
    pub visible: Histogram<u64>,
    /// From its answer until it was seen.
    pub visible_after: Histogram<u64>,
    last_answer: Instant,
}

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// So many of its transactions are accepted; the others are refused, one by one.
    Accepted(u64),
    /// The gateway has no room for it now.
    TurnedAway,
    /// Anything else.
    Failed(anyhow::Error),
}

/// Offers the load to its end and waits for all answers. Gives how many seconds it took, too.
pub async fn run(
    case: Case,
    settings: &Settings,
    place: &Place,
) -> anyhow::Result<(Measured, f64)> {
    let load = Load::new(&case, settings);
    let mut looking = JoinSet::new();
    let (looks, waiting) = mpsc::channel(LOOKS_MAX);
    let lookers = look::connect(place.query).await?;
    let start;
    let offer;
    match case.shape {
        Shape::Kafka => {
            let publisher = kafka::connect(&place.publisher).await?;
            start = Instant::now();
            offer = Offer::new(load, start);
            look::start(&offer, lookers, waiting, &mut looking);
            let publishing = kafka::publish_all(&offer, &publisher, &looks);
            progressing(&offer, publishing).await?;
        }
        Shape::Single | Shape::Ndjson | Shape::Array => {
            let clients = http::connect(place.gateway, settings.connections).await?;
            start = Instant::now();
            offer = Offer::new(load, start);
            look::start(&offer, lookers, waiting, &mut looking);
            let posting = http::post_all(&offer, place.gateway, clients, &looks);
            progressing(&offer, posting).await?;
        }
    }
    // The lookers end when nothing can come any more.
    drop(looks);
    looking.join_all().await;
    let offer = Arc::into_inner(offer).context("a task has not ended")?;
    let measured = offer.measured.into_inner();
    let measured = measured.unwrap_or_else(PoisonError::into_inner);
    let begun = start + Duration::from_secs(settings.warmup.into());
    let seconds = measured.last_answer.duration_since(begun).as_secs_f64();
    Ok((measured, seconds.max(settings.seconds.into())))
}

/// Tells now and then how far it is.
async fn progressing(
    offer: &Offer,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(PROGRESS_PERIOD);
    ticks.tick().await;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => say(&offer.progress()),
        }
    }
}

impl Offer {
    fn new(load: Load, start: Instant) -> Arc<Self> {
        Arc::new(Self {
            load,
            start,
            measured: Mutex::new(Measured {
                counts: Counts::default(),
                all_accepted: 0,
                all_failed: 0,
                accept: histogram(),
                visible: histogram(),
                visible_after: histogram(),
                last_answer: start,
            }),
        })
    }

    /// Waits until a request is due. Whether it shall be sent: one that is far too late shall not.
    pub async fn wait(&self, request: u64) -> bool {
        let due = self.due(request);
        let now = Instant::now();
        if due > now {
            tokio::time::sleep_until(due.into()).await;
        } else if now - due > LATE_MAX {
            let items = self.load.items();
            self.count(request, |counts| counts.not_sent += items);
            return false;
        }
        true
    }

    /// Adds what became of a request just now.
    pub fn answered(&self, request: u64, answer: Answer) {
        let now = Instant::now();
        let items = self.load.items();
        let is_measured = self.load.is_measured(request);
        let mut measured = self.measured();
        match answer {
            Answer::Accepted(accepted) => {
                measured.all_accepted += accepted;
                if is_measured {
                    measured.counts.accepted += accepted;
                    measured.counts.refused += items.saturating_sub(accepted);
                    latency::record(&mut measured.accept, now - self.due(request));
                    measured.last_answer = now;
                }
            }
            Answer::TurnedAway if is_measured => measured.counts.turned_away += items,
            Answer::TurnedAway => {}
            Answer::Failed(error) => {
                measured.all_failed += items;
                if is_measured {
                    measured.counts.fail(items, &error);
                }
            }
        }
    }

    /// Has a transaction looked for, if there is room.
    pub fn look_for(&self, looks: &Looks, look: look::Look) {
        let request = look.request;
        if looks.try_send(look).is_err() {
            self.count(request, |counts| counts.not_looked_for += 1);
        }
    }

    /// A sample was seen just now, or will not be.
    pub fn looked(&self, request: u64, answered: Instant, is_seen: bool) {
        let now = Instant::now();
        if !is_seen {
            self.count(request, |counts| counts.not_found += 1);
        } else if self.load.is_measured(request) {
            let mut measured = self.measured();
            latency::record(&mut measured.visible, now - self.due(request));
            latency::record(&mut measured.visible_after, now - answered);
        }
    }

    fn due(&self, request: u64) -> Instant {
        self.start + self.load.due(request)
    }

    fn count(&self, request: u64, add: impl FnOnce(&mut Counts)) {
        if self.load.is_measured(request) {
            add(&mut self.measured().counts);
        }
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> String {
        let measured = self.measured();
        format!(
            "  {:.0} s: {} accepted, {} failed; visible p99 {:.0} ms",
            self.start.elapsed().as_secs_f64(),
            measured.all_accepted,
            measured.all_failed,
            latency::Latency::of(&measured.visible).p99,
        )
    }
}
