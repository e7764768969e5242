//! All costs between two moments: CPU of every process that takes part, WAL, and what else the machine
//! did meanwhile.

use std::time::Instant;

use anyhow::Context as _;
use sqlx::PgConnection;

use crate::processes;
use crate::programs::Service;
use crate::scratch::Servers;

/// The start of the name under which the ledger's connections are known to Postgres.
const LEDGER_BACKENDS: &str = "millrace ledger";

/// The same of the background workers.
const PROJECT_BACKENDS: &str = "millrace project";

/// Which processes are the servers'.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Postgres' first process; none where it is on another machine.
    postmaster: Option<u32>,
    /// All brokers; none where one of them is on another machine.
    brokers: Option<Vec<u32>>,
}

/// What is running for a run.
#[derive(Debug, Default)]
pub struct Services {
    /// Replicas of the ledger group.
    pub ledgers: Vec<Service>,
    /// The background workers.
    pub project: Option<Service>,
}

/// Counters at one moment: CPU in microseconds, all of them only ever rising.
#[derive(Debug, Clone)]
pub struct Reading {
    at: Instant,
    machine: u64,
    /// This program.
    harness: u64,
    /// Each replica of the ledger group since its start.
    pub ledgers: Vec<u64>,
    /// The background workers since their start.
    pub project: u64,
    /// Postgres with all its processes, also those that have ended.
    pub postgres: Option<u64>,
    /// Of these, the ledger's connections that are open now.
    pub postgres_ledger: Option<u64>,
    /// Of these, the background workers' connections that are open now.
    pub postgres_project: Option<u64>,
    /// All brokers.
    pub kafka: Option<u64>,
    /// Where the write-ahead log ends.
    pub wal_bytes: i64,
}

impl Meter {
    /// Finds the servers' processes, if they are on this machine and this user may see them.
    pub async fn new(servers: &Servers) -> anyhow::Result<Self> {
        let mut connection = servers.connect().await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        Ok(Self {
            postmaster: postmaster(backend),
            brokers: servers.brokers.split(',').map(broker).collect(),
        })
    }

    /// The command line of a broker.
    pub fn broker_command(&self) -> Option<String> {
        processes::command_line(*self.brokers.as_ref()?.first()?)
    }

    /// All counters now.
    pub async fn read(
        &self,
        connection: &mut PgConnection,
        services: &Services,
    ) -> anyhow::Result<Reading> {
        let backends: Vec<(i32, String)> = sqlx::query_as(
            "select pid, application_name from pg_stat_activity where datname = current_database()",
        )
        .fetch_all(&mut *connection)
        .await?;
        let wal_bytes = sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0')::bigint")
            .fetch_one(connection)
            .await?;
        let of_backends = |prefix: &str| {
            let named = backends.iter().filter(|(_, name)| name.starts_with(prefix));
            self.postmaster?;
            Some(
                named
                    .filter_map(|(pid, _)| processes::cpu(u32::try_from(*pid).ok()?).ok())
                    .sum(),
            )
        };
        let cpu = |service: &Service| processes::cpu(service.pid());
        Ok(Reading {
            ledgers: services
                .ledgers
                .iter()
                .map(cpu)
                .collect::<anyhow::Result<_>>()?,
            project: services.project.as_ref().map_or(Ok(0), cpu)?,
            postgres: self.postmaster.map(processes::tree_cpu).transpose()?,
            postgres_ledger: of_backends(LEDGER_BACKENDS),
            postgres_project: of_backends(PROJECT_BACKENDS),
            kafka: self.kafka()?,
            wal_bytes,
            harness: processes::cpu(std::process::id())?,
            machine: processes::machine_cpu()?,
            at: Instant::now(),
        })
    }

    fn kafka(&self) -> anyhow::Result<Option<u64>> {
        let Some(brokers) = &self.brokers else {
            return Ok(None);
        };
        let each = brokers.iter().map(|pid| processes::cpu(*pid));
        each.sum::<anyhow::Result<u64>>().map(Some)
    }
}

impl Services {
    /// Fails when one of them has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let mut all = self.ledgers.iter_mut().chain(&mut self.project);
        all.try_for_each(Service::check)
    }

    /// The most memory that any replica of the ledger has had resident, in KiB.
    pub fn ledger_peak_kib(&self) -> anyhow::Result<u64> {
        let mut peaks = self
            .ledgers
            .iter()
            .map(|ledger| processes::peak_resident_kib(ledger.pid()));
        peaks.try_fold(0, |most, peak| Ok(most.max(peak?)))
    }

    /// The same of the background workers.
    pub fn project_peak_kib(&self) -> anyhow::Result<u64> {
        let project = self.project.as_ref().context("no background workers")?;
        processes::peak_resident_kib(project.pid())
    }
}

impl Reading {
    /// Seconds since an earlier reading.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.duration_since(earlier.at).as_secs_f64()
    }

    /// Postgres' CPU since an earlier reading.
    pub fn postgres_since(&self, earlier: &Self) -> Option<u64> {
        Some(self.postgres?.saturating_sub(earlier.postgres?))
    }

    /// The brokers' CPU since an earlier reading.
    pub fn kafka_since(&self, earlier: &Self) -> Option<u64> {
        Some(self.kafka?.saturating_sub(earlier.kafka?))
    }

    /// The share of the machine, in percent of all its cores, that others took or its host withheld
    /// since a reading from before the services were started.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a few hours")]
    pub fn others_percent_since(&self, start: &Self, cores: usize) -> Option<f64> {
        let ours = self.ledgers.iter().sum::<u64>()
            + self.project
            + self.harness.saturating_sub(start.harness)
            + self.postgres_since(start)?
            + self.kafka_since(start)?;
        let others = (self.machine - start.machine).saturating_sub(ours) as f64;
        let there = self.seconds_since(start) * 1e6 * cores as f64;
        Some(100.0 * others / there)
    }
}

/// The parent of a connection's process. The process is Postgres' only if the server is on this machine:
/// elsewhere the number means another process, or none.
fn postmaster(backend: i32) -> Option<u32> {
    let backend = u32::try_from(backend).ok()?;
    let is_ours = processes::command_line(backend)?.starts_with("postgres:");
    is_ours.then(|| processes::parent(backend).ok()).flatten()
}

fn broker(address: &str) -> Option<u32> {
    let (host, port) = address.trim().rsplit_once(':')?;
    let is_here = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    is_here
        .then(|| processes::listener(port.parse().ok()?))
        .flatten()
}
