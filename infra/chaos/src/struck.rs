//! What is done to a replica, and what of a fault is still to be ended.

use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use crate::cluster::{Held, Slot};
use crate::positions::SETTLE;
use crate::proxy::Mode;
use crate::servers::connect;

/// How long a replica may take to leave: its own limit, and a little.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How often a replica is stopped in search of an open COPY, and then of any open transaction.
const TRIES_COPY: u32 = 300;
const TRIES_ANY: u32 = 600;

/// A fault that was made.
pub struct Struck {
    /// Which replica or server.
    pub victim: String,
    /// None: all of them.
    pub partitions: Option<Vec<usize>>,
    /// The moment.
    pub at: Instant,
    /// From then on no commit is one from before.
    pub settled: Instant,
    /// How long until it is ended.
    pub hold: Duration,
    /// What ends it.
    pub end: End,
    /// How the replica left, if it was told to.
    pub exit: Option<Exit>,
    /// What else is to be said.
    pub note: Option<String>,
}

/// How a replica left.
pub struct Exit {
    pub after: Duration,
    pub code: Option<i32>,
}

/// What ends a fault. It holds what was struck until then.
pub enum End {
    /// It was over at once.
    Over,
    /// A replica starts where one was.
    Start(Held),
    /// A frozen replica goes on.
    Continue(Held),
    /// A replica's ways are as before.
    Pass(Held),
    StartPostgres(OwnedMutexGuard<()>),
    StartKafka(usize, OwnedMutexGuard<()>),
}

impl Struck {
    /// All partitions are struck, and nothing lasts.
    pub fn all(victim: String, struck: Instant, end: End) -> Self {
        Self {
            victim,
            partitions: None,
            at: struck,
            settled: Instant::now() + SETTLE,
            hold: Duration::ZERO,
            end,
            exit: None,
            note: None,
        }
    }

    fn frozen(
        slot: Held,
        partitions: Vec<usize>,
        struck: Instant,
        hold: Duration,
        note: Option<String>,
    ) -> Self {
        Self {
            partitions: Some(partitions),
            hold,
            note,
            ..Self::all(slot.name(), struck, End::Continue(slot))
        }
    }
}

/// Which of a replica's connections.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Postgres,
    Kafka,
}

pub async fn kill(mut slot: Held, hold: Duration) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let victim = slot.name();
    let replica = slot.replica.take().context("a victim is there")?;
    let struck = Instant::now();
    replica.kill()?;
    Ok(Struck {
        partitions: Some(partitions),
        hold,
        ..Struck::all(victim, struck, End::Start(slot))
    })
}

pub async fn freeze(slot: Held, hold: Duration) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let struck = Instant::now();
    signal(&slot, Signal::STOP)?;
    Ok(Struck::frozen(slot, partitions, struck, hold, None))
}

pub async fn hinder(slot: Held, hold: Duration, way: Way, mode: Mode) -> Struck {
    let partitions = slot.partitions().await;
    let struck = Instant::now();
    match way {
        Way::Postgres => slot.postgres.set(mode),
        Way::Kafka => slot.set_kafka(mode),
    }
    let note = match mode {
        Mode::Slow(latency) => Some(format!("{} ms each way", latency.as_millis())),
        _ => None,
    };
    Struck {
        partitions: Some(partitions),
        hold,
        note,
        ..Struck::all(slot.name(), struck, End::Pass(slot))
    }
}

pub fn signal(slot: &Slot, signal: Signal) -> anyhow::Result<()> {
    let replica = slot.replica.as_ref().context("a victim is there")?;
    replica.signal(signal)
}

/// SIGTERM. Where `hold` says so, another one starts after that.
pub async fn drain(mut slot: Held, hold: Option<Duration>) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let victim = slot.name();
    let struck = Instant::now();
    signal(&slot, Signal::TERM)?;
    let replica = slot.replica.take().context("a victim is there")?;
    let code = replica.end(DRAIN_LIMIT).await.ok().and_then(|s| s.code());
    let end = hold.map_or(End::Over, |_| End::Start(slot));
    Ok(Struck {
        partitions: Some(partitions),
        // It commits nothing after its end.
        settled: Instant::now(),
        hold: hold.unwrap_or_default(),
        exit: Some(Exit {
            after: struck.elapsed(),
            code,
        }),
        ..Struck::all(victim, struck, end)
    })
}

/// SIGSTOP while the lane's transaction is open, so that the rows that it has locked stay locked.
pub async fn freeze_in_copy(
    database: &PgConnectOptions,
    slot: Held,
    hold: Duration,
    random: &mut ChaCha8Rng,
) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let mut connection = connect(database).await?;
    let query = "select left(query, 40) from pg_stat_activity
         where application_name like 'millrace ledger ' || $1 || '/%' and wait_event = 'ClientRead'
             and (query ilike 'copy%' or $2 and state = 'idle in transaction')";
    let mut struck = Instant::now();
    for tries in 0..TRIES_ANY {
        struck = Instant::now();
        signal(&slot, Signal::STOP)?;
        // What it sent before has arrived by then.
        sleep(Duration::from_millis(5)).await;
        let open: Option<String> = sqlx::query_scalar(query)
            .bind(slot.name())
            .bind(tries >= TRIES_COPY)
            .fetch_optional(&mut connection)
            .await
            .inspect_err(|_| drop(signal(&slot, Signal::CONT)))?;
        if let Some(statement) = open {
            let note = format!("in {statement:?} at try {}", tries + 1);
            return Ok(Struck::frozen(slot, partitions, struck, hold, Some(note)));
        }
        signal(&slot, Signal::CONT)?;
        sleep(Duration::from_micros(random.random_range(500..15_000))).await;
    }
    signal(&slot, Signal::STOP)?;
    let note = "no open transaction was met".to_owned();
    Ok(Struck::frozen(slot, partitions, struck, hold, Some(note)))
}

pub async fn terminate_backend(database: &PgConnectOptions, slot: Held) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let mut connection = connect(database).await?;
    let struck = Instant::now();
    let ended: i64 = sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where application_name like 'millrace ledger ' || $1 || '/%'",
    )
    .bind(slot.name())
    .fetch_one(&mut connection)
    .await?;
    Ok(Struck {
        partitions: Some(partitions),
        note: Some(format!("{ended} ended")),
        ..Struck::all(slot.name(), struck, End::Over)
    })
}

pub async fn kill_backend(database: &PgConnectOptions, slot: Held) -> anyhow::Result<Struck> {
    let mut connection = connect(database).await?;
    let backend: i32 = sqlx::query_scalar(
        "select pid from pg_stat_activity where application_name like 'millrace ledger ' || $1 || '/%' limit 1",
    )
    .bind(slot.name())
    .fetch_one(&mut connection)
    .await?;
    let pid = Pid::from_raw(backend).context("a process id is not 0")?;
    let struck = Instant::now();
    kill_process(pid, Signal::KILL)?;
    // Postgres ends every session then.
    Ok(Struck::all(slot.name(), struck, End::Over))
}
