//! Doing each kind of fault, ending it, and waiting until its effects are over.

use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, Held, Slot};
use crate::faults::{Fault, Kind};
use crate::positions::{Positions, SETTLE};
use crate::proxy::Mode;
use crate::record::FaultRecord;
use crate::servers::connect;

/// What is not over by then, counted from the end of the fault, is a failure of its own.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// How long a replica may take to leave: its own limit, and a little.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How often a replica is stopped in search of an open COPY, and then of any open transaction.
const TRIES_COPY: u32 = 300;
const TRIES_ANY: u32 = 600;

/// What strikes.
#[derive(Debug)]
pub struct Striker<'a> {
    /// Whom.
    pub cluster: &'a Cluster,
    /// How it is seen to recover.
    pub positions: &'a Positions,
    /// The session timeout, by which faults are short or long.
    pub session: Duration,
    /// Instead of a drawn time: how long frozen and dead replicas stay so.
    pub hold: Option<Duration>,
    /// The run's start.
    pub start: Instant,
}

/// A fault that was made.
struct Struck {
    victim: String,
    /// None: all of them.
    partitions: Option<Vec<usize>>,
    at: Instant,
    settled: Instant,
    hold: Duration,
    end: End,
    exit: Option<Exit>,
    note: Option<String>,
}

/// How a replica left.
struct Exit {
    after: Duration,
    code: Option<i32>,
}

/// What ends a fault. It holds what was struck until then.
enum End {
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

impl Striker<'_> {
    /// Makes a fault and waits until it is over and its effects too.
    pub async fn strike(&self, fault: Fault, overlapping: bool) -> anyhow::Result<FaultRecord> {
        let made_at = self.start.elapsed();
        let made = self.make(fault).await;
        let mut record = FaultRecord::new(fault, overlapping, made_at);
        let struck = match made {
            Ok(Some(struck)) => struck,
            Ok(None) => {
                record.note = Some("nothing to strike".into());
                return Ok(record);
            }
            Err(error) => {
                record.note = Some(format!("not made: {error:#}"));
                return Ok(record);
            }
        };
        record.is_made = true;
        record.victim.clone_from(&struck.victim);
        record.at_s = (struck.at - self.start).as_secs_f64();
        record.note.clone_from(&struck.note);
        if let Some(exit) = &struck.exit {
            record.exit_ms = Some(millis(exit.after));
            record.exit_code = exit.code;
        }
        self.wait(struck, &mut record).await?;
        Ok(record)
    }

    async fn wait(&self, fault: Struck, record: &mut FaultRecord) -> anyhow::Result<()> {
        let all = || (0..self.positions.partitions()).collect();
        let partitions = fault.partitions.unwrap_or_else(all);
        record.partitions.clone_from(&partitions);
        let lasts = !matches!(fault.end, End::Over | End::Start(_));
        let ends_at = fault.at + fault.hold;
        let give_up = ends_at.max(fault.settled) + RECOVERY_LIMIT;
        let recovered = self
            .positions
            .recovery(&partitions, fault.at, fault.settled, give_up);
        let ended = async {
            sleep_until(ends_at).await;
            self.end(fault.end).await?;
            anyhow::Ok(fault.at.elapsed())
        };
        let (recovery, ended) = tokio::join!(recovered, ended);
        let ended = ended.with_context(|| format!("ending the fault {:?}", record.kind))?;
        record.lasted_ms = lasts.then(|| millis(ended));
        record.recovered_ms = recovery.victim.map(millis);
        record.all_recovered_ms = recovery.all.map(millis);
        Ok(())
    }

    async fn end(&self, end: End) -> anyhow::Result<()> {
        match end {
            End::Over => Ok(()),
            End::Start(mut slot) => slot.start().await,
            End::Continue(slot) => signal(&slot, Signal::CONT),
            End::Pass(slot) => {
                slot.postgres.set(Mode::Pass);
                slot.set_kafka(Mode::Pass);
                Ok(())
            }
            End::StartPostgres(_claim) => self.cluster.servers.postgres("start").await,
            End::StartKafka(node, _claim) => self.cluster.servers.kafka("start", node).await,
        }
    }

    async fn make(&self, fault: Fault) -> anyhow::Result<Option<Struck>> {
        let random = &mut fault.random();
        match fault.kind {
            Kind::KillPostgres => self.kill_postgres(random).await,
            Kind::KillBroker => self.kill_broker(random).await,
            Kind::Add => self.add().await,
            Kind::Remove => match self.cluster.spare(random) {
                Some(slot) => self.drain(slot, None).await.map(Some),
                None => Ok(None),
            },
            kind => match self.cluster.victim(random) {
                Some(slot) => self.strike_replica(kind, slot, random).await.map(Some),
                None => Ok(None),
            },
        }
    }

    async fn strike_replica(
        &self,
        kind: Kind,
        slot: Held,
        random: &mut ChaCha8Rng,
    ) -> anyhow::Result<Struck> {
        // How long, in session timeouts: shorter than one, or longer for sure.
        let sessions = match kind {
            Kind::FreezeShort => random.random_range(0.2..0.7),
            Kind::FreezeLong | Kind::FreezeInCopy => random.random_range(1.3..2.5),
            _ => random.random_range(0.2..2.0),
        };
        let hold = self.hold.unwrap_or_else(|| self.session.mul_f64(sessions));
        let latency = Duration::from_millis(random.random_range(20..200));
        match kind {
            Kind::KillReplica => kill(slot, hold).await,
            Kind::FreezeShort | Kind::FreezeLong => freeze(slot, hold).await,
            Kind::FreezeInCopy => self.freeze_in_copy(slot, hold, random).await,
            Kind::TerminateBackend => self.terminate_backend(slot).await,
            Kind::KillBackend => self.kill_backend(slot).await,
            Kind::PostgresSlow => Ok(hinder(slot, hold, Way::Postgres, Mode::Slow(latency)).await),
            Kind::PostgresStalled => Ok(hinder(slot, hold, Way::Postgres, Mode::Stalled).await),
            Kind::PostgresCut => Ok(hinder(slot, hold, Way::Postgres, Mode::Cut).await),
            Kind::KafkaSlow => Ok(hinder(slot, hold, Way::Kafka, Mode::Slow(latency)).await),
            Kind::KafkaStalled => Ok(hinder(slot, hold, Way::Kafka, Mode::Stalled).await),
            Kind::KafkaCut => Ok(hinder(slot, hold, Way::Kafka, Mode::Cut).await),
            Kind::Drain | Kind::Remove | Kind::Add | Kind::KillPostgres | Kind::KillBroker => {
                self.drain(slot, Some(hold)).await
            }
        }
    }

    async fn add(&self) -> anyhow::Result<Option<Struck>> {
        let Some(mut slot) = self.cluster.vacancy() else {
            return Ok(None);
        };
        let struck = Instant::now();
        slot.start().await?;
        Ok(Some(Struck::all(slot.name(), struck, End::Over)))
    }

    async fn kill_postgres(&self, random: &mut ChaCha8Rng) -> anyhow::Result<Option<Struck>> {
        let Ok(claim) = self.cluster.postgres.clone().try_lock_owned() else {
            return Ok(None);
        };
        let struck = Instant::now();
        self.cluster.servers.postgres("kill").await?;
        let mut fault = Struck::all("Postgres".into(), struck, End::StartPostgres(claim));
        fault.hold = Duration::from_secs_f64(random.random_range(0.0..4.0));
        Ok(Some(fault))
    }

    async fn kill_broker(&self, random: &mut ChaCha8Rng) -> anyhow::Result<Option<Struck>> {
        let Ok(claim) = self.cluster.kafka.clone().try_lock_owned() else {
            return Ok(None);
        };
        let node = random.random_range(1..=self.cluster.servers.broker_count());
        let struck = Instant::now();
        self.cluster.servers.kafka("kill", node).await?;
        let end = End::StartKafka(node, claim);
        let mut fault = Struck::all(format!("broker {node}"), struck, end);
        fault.hold = Duration::from_secs_f64(random.random_range(0.0..6.0));
        Ok(Some(fault))
    }

    /// SIGTERM. Where `hold` says so, another one starts after that.
    async fn drain(&self, mut slot: Held, hold: Option<Duration>) -> anyhow::Result<Struck> {
        let partitions = slot.partitions().await;
        let victim = slot.name();
        let struck = Instant::now();
        signal(&slot, Signal::TERM)?;
        let replica = slot.replica.take().context("a victim is there")?;
        let status = replica.end(DRAIN_LIMIT).await?;
        let end = hold.map_or(End::Over, |_| End::Start(slot));
        Ok(Struck {
            partitions: Some(partitions),
            // It commits nothing after its end.
            settled: Instant::now(),
            hold: hold.unwrap_or_default(),
            exit: Some(Exit {
                after: struck.elapsed(),
                code: status.code(),
            }),
            ..Struck::all(victim, struck, end)
        })
    }

    /// SIGSTOP while the lane's transaction is open, so that the rows that it has locked stay locked.
    async fn freeze_in_copy(
        &self,
        slot: Held,
        hold: Duration,
        random: &mut ChaCha8Rng,
    ) -> anyhow::Result<Struck> {
        let partitions = slot.partitions().await;
        let mut connection = connect(&self.cluster.database).await?;
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

    async fn terminate_backend(&self, slot: Held) -> anyhow::Result<Struck> {
        let partitions = slot.partitions().await;
        let mut connection = connect(&self.cluster.database).await?;
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

    async fn kill_backend(&self, slot: Held) -> anyhow::Result<Struck> {
        let mut connection = connect(&self.cluster.database).await?;
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
}

impl Struck {
    /// All partitions are struck, and nothing lasts.
    fn all(victim: String, struck: Instant, end: End) -> Self {
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
enum Way {
    Postgres,
    Kafka,
}

async fn kill(mut slot: Held, hold: Duration) -> anyhow::Result<Struck> {
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

async fn freeze(slot: Held, hold: Duration) -> anyhow::Result<Struck> {
    let partitions = slot.partitions().await;
    let struck = Instant::now();
    signal(&slot, Signal::STOP)?;
    Ok(Struck::frozen(slot, partitions, struck, hold, None))
}

async fn hinder(slot: Held, hold: Duration, way: Way, mode: Mode) -> Struck {
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

fn signal(slot: &Slot, signal: Signal) -> anyhow::Result<()> {
    let replica = slot.replica.as_ref().context("a victim is there")?;
    replica.signal(signal)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
