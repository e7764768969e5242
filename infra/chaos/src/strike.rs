//! Making a fault, ending it, and waiting until its effects are over.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, Held};
use crate::faults::{Fault, Kind};
use crate::positions::Positions;
use crate::proxy::Mode;
use crate::record::FaultRecord;
use crate::struck::{
    End, Struck, Way, drain, freeze, freeze_in_copy, hinder, kill, kill_backend, signal,
    terminate_backend,
};

/// What is not over by then, counted from the end of the fault, is a failure of its own.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

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

impl Striker<'_> {
    /// Makes a fault and waits until it is over and its effects too.
    pub async fn strike(&self, fault: Fault, overlapping: bool) -> FaultRecord {
        let made_at = self.start.elapsed();
        let made = self.make(fault).await;
        let mut record = FaultRecord::new(fault, overlapping, made_at);
        let struck = match made {
            Ok(Some(struck)) => struck,
            Ok(None) => {
                record.note = Some("nothing to strike".into());
                return record;
            }
            Err(error) => {
                record.note = Some(format!("not made: {error:#}"));
                return record;
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
        self.wait(struck, &mut record).await;
        record
    }

    async fn wait(&self, fault: Struck, record: &mut FaultRecord) {
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
        match ended {
            Ok(ended) => record.lasted_ms = lasts.then(|| millis(ended)),
            Err(error) => record.error = Some(format!("not ended: {error:#}")),
        }
        record.recovered_ms = recovery.victim.map(millis);
        record.all_recovered_ms = recovery.all.map(millis);
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
            Kind::Remove => match self.cluster.spare(random).await {
                Some(slot) => drain(slot, None).await.map(Some),
                None => Ok(None),
            },
            kind => match self.cluster.victim(random).await {
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
        let database = &self.cluster.database;
        let latency = Duration::from_millis(random.random_range(20..200));
        match kind {
            Kind::KillReplica => kill(slot, hold).await,
            Kind::FreezeShort | Kind::FreezeLong => freeze(slot, hold).await,
            Kind::FreezeInCopy => freeze_in_copy(database, slot, hold, random).await,
            Kind::TerminateBackend => terminate_backend(database, slot).await,
            Kind::KillBackend => kill_backend(database, slot).await,
            Kind::PostgresSlow => Ok(hinder(slot, hold, Way::Postgres, Mode::Slow(latency)).await),
            Kind::PostgresStalled => Ok(hinder(slot, hold, Way::Postgres, Mode::Stalled).await),
            Kind::PostgresCut => Ok(hinder(slot, hold, Way::Postgres, Mode::Cut).await),
            Kind::KafkaSlow => Ok(hinder(slot, hold, Way::Kafka, Mode::Slow(latency)).await),
            Kind::KafkaStalled => Ok(hinder(slot, hold, Way::Kafka, Mode::Stalled).await),
            Kind::KafkaCut => Ok(hinder(slot, hold, Way::Kafka, Mode::Cut).await),
            Kind::Drain | Kind::Remove | Kind::Add | Kind::KillPostgres | Kind::KillBroker => {
                drain(slot, Some(hold)).await
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
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
