//! The servers in a directory of `infra/local`, and taking them down.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

/// A database that restores itself answers late.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A Kafka and a Postgres that are there to be struck.
#[derive(Debug)]
pub struct Servers {
    dir: PathBuf,
    scripts: PathBuf,
    /// `host:port` of every broker, comma-separated, without a proxy.
    pub brokers: String,
    /// The superuser, without a proxy.
    pub database: PgConnectOptions,
    /// The further listeners of the brokers, by way.
    pub ways: BTreeMap<usize, Vec<Listener>>,
}

/// A listener that clients reach through a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// Where clients are told to connect to.
    pub advertised: SocketAddr,
}

impl Servers {
    /// Reads what `up.sh` wrote.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let file = dir.join(name);
            fs::read_to_string(&file).with_context(|| {
                format!(
                    "{}: start servers with infra/local/up.sh --ways 4",
                    file.display()
                )
            })
        };
        let env = read("env")?;
        let value = |name: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(name));
            line.with_context(|| format!("no {name} in {env:?}"))
        };
        let mut ways = BTreeMap::<_, Vec<_>>::new();
        for line in read("ways")?.lines() {
            let [way, broker, advertised] = line.split(' ').collect::<Vec<_>>()[..] else {
                bail!("a way is {line:?}");
            };
            ways.entry(way.parse()?).or_default().push(Listener {
                broker: broker.parse()?,
                advertised: advertised.parse()?,
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            scripts: Path::new(env!("CARGO_MANIFEST_DIR")).join("../local"),
            brokers: value("MILLRACE_BROKERS=")?.to_owned(),
            database: value("DATABASE_URL=")?.parse()?,
            ways,
        })
    }

    /// How many brokers there are.
    pub fn broker_count(&self) -> usize {
        self.brokers.split(',').count()
    }

    /// `kill` or `start` a node of Kafka; from 1.
    pub async fn kafka(&self, action: &str, node: usize) -> anyhow::Result<()> {
        let node = node.to_string();
        self.script("kafka.sh", &[action, "--node", &node]).await
    }

    /// `kill` or `start` Postgres.
    pub async fn postgres(&self, action: &str) -> anyhow::Result<()> {
        self.script("postgres.sh", &[action]).await
    }

    async fn script(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.scripts.join(name));
        command.args(arguments).arg("--dir").arg(&self.dir);
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        if !ended.status.success() {
            bail!("{name} {arguments:?}: {ended:?}");
        }
        Ok(())
    }
}

/// One connection of the harness itself, never through a proxy.
pub async fn connect(database: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options = database.clone().application_name("millrace chaos");
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    connected
        .context("connecting to Postgres takes too long")?
        .context("connecting to Postgres")
}
