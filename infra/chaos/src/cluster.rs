//! A database, a topic and replicas of the ledger, each with its own way to the servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::options::Options;
use crate::proxy::{Mode, Proxy};
use crate::replica::Replica;
use crate::servers::{Servers, connect};

/// A server that a fault has to itself.
pub type Claim = Arc<Mutex<()>>;

/// Who strikes a replica has its slot to itself.
pub type Held = OwnedMutexGuard<Slot>;

/// How long all replicas may take to share the partitions.
const BALANCE_TIMEOUT: Duration = Duration::from_mins(2);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(100);

/// Everything that is struck.
#[derive(Debug)]
pub struct Cluster {
    /// Kafka and Postgres.
    pub servers: Servers,
    /// The run's own database.
    pub database: PgConnectOptions,
    /// The name of the database, the topic and the group.
    pub name: String,
    /// Where replicas are, or could be.
    pub slots: Vec<Arc<Mutex<Slot>>>,
    /// Whoever takes Postgres down.
    pub postgres: Claim,
    /// Whoever takes a broker down.
    pub kafka: Claim,
    millrace: PathBuf,
}

/// Room for a replica, and its ways.
#[derive(Debug)]
pub struct Slot {
    /// Who is there.
    pub replica: Option<Replica>,
    /// The way to Postgres.
    pub postgres: Proxy,
    /// The ways to each broker.
    pub kafka: Vec<Proxy>,
    number: usize,
    starts: u32,
    launch: Launch,
}

/// How its replicas are started.
#[derive(Debug)]
struct Launch {
    millrace: PathBuf,
    logs: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Makes the database and the topic; starts no replica.
    pub async fn create(options: &Options, session_timeout: Duration) -> anyhow::Result<Self> {
        let servers = Servers::open(&options.servers)?;
        let name = format!("chaos_{}", Uuid::new_v4().simple());
        let mut connection = connect(&servers.database).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await?;
        let database = servers.database.clone().database(&name);
        let mut cluster = Self {
            database,
            name,
            slots: Vec::new(),
            postgres: Claim::default(),
            kafka: Claim::default(),
            millrace: options.millrace.clone(),
            servers,
        };
        let partitions = options.partitions.to_string();
        cluster.tool(&["migrate"]).await?;
        cluster
            .tool(&["topics", "create", "--partitions", &partitions])
            .await?;
        // Beside the servers, whose directory ends with them.
        let logs = options.servers.with_extension("logs").join(&cluster.name);
        std::fs::create_dir_all(&logs)?;
        for way in cluster.servers.ways.keys() {
            let slot = cluster.slot(*way, &logs, session_timeout).await?;
            cluster.slots.push(Arc::new(Mutex::new(slot)));
        }
        Ok(cluster)
    }

    async fn slot(&self, way: usize, logs: &Path, session: Duration) -> anyhow::Result<Slot> {
        let mut kafka = Vec::new();
        for listener in &self.servers.ways[&way] {
            kafka.push(Proxy::start(listener.advertised, listener.broker).await?);
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let target = SocketAddr::from(([127, 0, 0, 1], self.database.get_port()));
        let postgres = Proxy::start(any, target).await?;
        let database = self.database.clone().port(postgres.address.port());
        let brokers: Vec<_> = kafka
            .iter()
            .map(|proxy| proxy.address.to_string())
            .collect();
        let session_ms = session.as_millis().to_string();
        let environment = vec![
            ("DATABASE_URL", database.to_url_lossy().to_string()),
            ("MILLRACE_BROKERS", brokers.join(",")),
            ("MILLRACE_TOPIC", self.name.clone()),
            ("MILLRACE_GROUP", self.name.clone()),
            ("MILLRACE_LANES", "1".to_owned()),
            ("MILLRACE_KAFKA_SESSION_TIMEOUT_MS", session_ms),
            ("MILLRACE_KAFKA_HEARTBEAT_INTERVAL_MS", "500".to_owned()),
        ];
        Ok(Slot {
            replica: None,
            postgres,
            kafka,
            number: way,
            starts: 0,
            launch: Launch {
                millrace: self.millrace.clone(),
                logs: logs.to_owned(),
                environment,
            },
        })
    }

    /// Runs `millrace` to its end, without a proxy.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = millrace(&self.millrace);
        command
            .args(arguments)
            .env("DATABASE_URL", self.database.to_url_lossy().to_string())
            .env("MILLRACE_BROKERS", &self.servers.brokers)
            .env("MILLRACE_TOPIC", &self.name);
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        output.with_context(|| self.millrace.display().to_string())
    }

    async fn tool(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.run(arguments).await?;
        if !output.status.success() {
            bail!("millrace {arguments:?}: {output:?}");
        }
        Ok(())
    }

    /// A replica that nobody else strikes now; one with partitions, if any has.
    pub async fn victim(&self, random: &mut ChaCha8Rng) -> Option<Held> {
        let mut running = self.free(|slot| slot.replica.is_some());
        running.shuffle(random);
        let mut idle = None;
        for slot in running {
            if !slot.partitions().await.is_empty() {
                return Some(slot);
            }
            idle = Some(slot);
        }
        idle
    }

    /// The same, if another one stays.
    pub async fn spare(&self, random: &mut ChaCha8Rng) -> Option<Held> {
        let running = self.free(|slot| slot.replica.is_some()).len();
        if running > 1 {
            self.victim(random).await
        } else {
            None
        }
    }

    /// Room for one replica more.
    pub fn vacancy(&self) -> Option<Held> {
        self.free(|slot| slot.replica.is_none()).into_iter().next()
    }

    fn free(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Held> {
        let slots = self.slots.iter().cloned();
        let free = slots.filter_map(|slot| slot.try_lock_owned().ok());
        free.filter(|slot| wanted(slot)).collect()
    }

    /// Replicas that nobody has ended and that have; they are started again.
    pub async fn revive(&self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        for mut slot in self.free(|slot| slot.replica.is_some()) {
            let Some(replica) = &mut slot.replica else {
                continue;
            };
            if let Some(status) = replica.ended()? {
                ended.push(format!("{} ended by itself: {status}", replica.name));
                slot.start().await?;
            }
        }
        Ok(ended)
    }

    /// Waits until every partition has an owner, and every running replica its share.
    pub async fn balanced(&self, partitions: usize) -> anyhow::Result<()> {
        let give_up = Instant::now() + BALANCE_TIMEOUT;
        while Instant::now() < give_up {
            let mut shares = Vec::new();
            for slot in self.free(|slot| slot.replica.is_some()) {
                shares.push(slot.partitions().await.len());
            }
            let least = partitions / shares.len().max(1);
            if shares.iter().sum::<usize>() == partitions && shares.iter().all(|s| *s >= least) {
                return Ok(());
            }
            sleep(GLANCE).await;
        }
        bail!("the replicas do not come to share the partitions")
    }
}

impl Slot {
    /// Starts a replica here; whoever was there is killed.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let name = format!("r{}.{}", self.number, self.starts);
        let mut command = millrace(&self.launch.millrace);
        command.arg("ledger").envs(
            self.launch
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        let log = self.launch.logs.join(format!("{name}.log"));
        self.replica = None;
        self.replica = Some(Replica::start(command, name, log).await?);
        Ok(())
    }

    /// The partitions of its replica; none where it does not tell.
    pub async fn partitions(&self) -> Vec<usize> {
        match &self.replica {
            Some(replica) => replica.partitions().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// The name of who is there.
    pub fn name(&self) -> String {
        let name = self.replica.as_ref().map(|replica| replica.name.clone());
        name.unwrap_or_else(|| format!("r{}", self.number))
    }

    /// From now on, on its ways to all brokers.
    pub fn set_kafka(&self, mode: Mode) {
        for proxy in &self.kafka {
            proxy.set(mode);
        }
    }
}

/// The binary, without anything of the caller's environment but properties of librdkafka, which are for replicas too.
fn millrace(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours = name.starts_with("MILLRACE_") && !name.starts_with("MILLRACE_KAFKA_");
        if is_ours || name == "DATABASE_URL" {
            command.env_remove(&*name);
        }
    }
    command
}
