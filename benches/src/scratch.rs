//! A database and a topic that live as long as one run, on servers that are there before and after.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};

/// Environment variables with this prefix are librdkafka properties, as for `millrace`.
const KAFKA_PREFIX: &str = "MILLRACE_KAFKA_";

/// A broker that works answers within this time.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// A database that is there, of a user who may create others.
    pub database: PgConnectOptions,
}

/// One run's own database, topic and consumer group.
#[derive(Debug)]
pub struct Scratch {
    servers: Servers,
    /// The name of all three.
    pub name: String,
}

impl Servers {
    /// One connection to the database that is there.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        connect(&self.database).await
    }

    /// The environment's librdkafka properties.
    pub fn properties() -> Vec<(String, String)> {
        std::env::vars()
            .filter_map(|(name, value)| {
                let property = name.strip_prefix(KAFKA_PREFIX)?;
                Some((property.to_ascii_lowercase().replace('_', "."), value))
            })
            .collect()
    }

    fn kafka(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in Self::properties() {
            config.set(name, value);
        }
        config.create().context("Kafka settings")
    }
}

impl Scratch {
    /// Creates the database, empty. The topic is for `millrace` to create.
    pub async fn create(servers: &Servers, name: String) -> anyhow::Result<Self> {
        let metadata = servers.kafka()?.inner().fetch_metadata(None, KAFKA_TIMEOUT);
        metadata.with_context(|| format!("no Kafka answers at {}", servers.brokers))?;
        let mut connection = servers.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut connection)
            .await
            .context("creating the run's database")?;
        let servers = servers.clone();
        Ok(Self { servers, name })
    }

    /// One connection to the run's database.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        connect(&self.database()).await
    }

    /// What `millrace` must find in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MILLRACE_BROKERS", self.servers.brokers.clone()),
            ("MILLRACE_TOPIC", self.name.clone()),
            ("MILLRACE_GROUP", self.name.clone()),
            ("MILLRACE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABASE_URL", self.database().to_url_lossy().to_string()),
        ]
    }

    /// Where to publish.
    pub fn publisher(&self) -> millrace_publisher::Settings {
        millrace_publisher::Settings {
            properties: Servers::properties(),
            ..millrace_publisher::Settings::new(&self.servers.brokers, &self.name)
        }
    }

    /// Drops all three. What is not there is no failure: a run may have ended early.
    pub async fn remove(self) -> anyhow::Result<()> {
        let (database, log) = (self.drop_database().await, self.remove_log().await);
        let name = &self.name;
        database.with_context(|| format!("database {name} is left behind"))?;
        log.with_context(|| format!("topic and group {name} may be left behind"))
    }

    async fn drop_database(&self) -> anyhow::Result<()> {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let mut connection = self.servers.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    async fn remove_log(&self) -> anyhow::Result<()> {
        let kafka = self.servers.kafka()?;
        let options = AdminOptions::new().request_timeout(Some(KAFKA_TIMEOUT));
        kafka.delete_groups(&[&self.name], &options).await?;
        kafka.delete_topics(&[&self.name], &options).await?;
        Ok(())
    }

    fn database(&self) -> PgConnectOptions {
        self.servers.database.clone().database(&self.name)
    }
}

async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options = options.clone().application_name("millrace bench");
    options.connect().await.context("connecting to Postgres")
}
