//! Flags that several commands share, and what they connect to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use millrace_ledger::store::schema;
use millrace_publisher::Publisher;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use super::ends::Usage;
use super::values::{brokers, database_url, reason, topic};

/// The topic where none is set.
pub const TOPIC: &str = "transactions.submitted";

/// Environment variables with this prefix are librdkafka properties.
const KAFKA_PREFIX: &str = "MILLRACE_KAFKA_";

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
pub struct Kafka {
    /// Kafka brokers, host:port, comma-separated.
    #[arg(long, env = "MILLRACE_BROKERS", default_value = "127.0.0.1:9092", value_parser = brokers)]
    pub brokers: String,
    /// The topic that transactions are submitted to.
    #[arg(long, env = "MILLRACE_TOPIC", default_value = TOPIC, value_parser = topic)]
    pub topic: String,
}

impl Kafka {
    /// The librdkafka properties of the environment.
    pub fn properties() -> Result<Vec<(String, String)>, Usage> {
        let mut properties = Vec::new();
        for (variable, value) in std::env::vars_os() {
            let Some(name) = variable
                .to_str()
                .and_then(|name| name.strip_prefix(KAFKA_PREFIX))
            else {
                continue;
            };
            let name = name.to_ascii_lowercase().replace('_', ".");
            let value = value
                .into_string()
                .map_err(|_| Usage(format!("{} is not UTF-8", variable.display())))?;
            properties.push((name, value));
        }
        Ok(properties)
    }

    /// A client for questions and orders to the cluster.
    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Usage> {
        let mut config = ClientConfig::new();
        for (name, value) in Self::properties()? {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.create().map_err(|error| {
            let refused = millrace_ledger::kafka::settings::refused(&error);
            Usage(format!("Kafka settings: {refused}"))
        })
    }

    /// Connects to the topic for publishing.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        let settings = millrace_publisher::Settings {
            properties: Self::properties()?,
            ..millrace_publisher::Settings::new(&self.brokers, &self.topic)
        };
        Publisher::connect(&settings).await.map_err(|error| {
            if let millrace_publisher::Error::Settings(why) = error {
                return Usage(format!("Kafka settings: {why}")).into();
            }
            anyhow::Error::new(error).context("connecting to Kafka")
        })
    }
}

/// A database that does not answer by then is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection.
pub async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection, sqlx::Error> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    connected.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Where Postgres is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// Postgres connection URL.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = database_url)]
    pub database_url: PgConnectOptions,
}

impl Database {
    /// One connection for a tool.
    pub async fn connect(&self) -> anyhow::Result<sqlx::PgConnection> {
        let options = self.database_url.clone().application_name("millrace");
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let connected = connect(&options).await;
        connected.with_context(|| format!("connecting to Postgres at {host}:{port}"))
    }

    /// The same to a database of this version.
    pub async fn connect_migrated(&self) -> anyhow::Result<sqlx::PgConnection> {
        let mut connection = self.connect().await?;
        match schema::check(&mut connection).await {
            Err(error) if error.is_forbidden() => {
                Err(error).context(
                    "this login may not read the schema millrace: take one of role millrace_writer, or a \
                     member of pg_read_all_data to verify, export and mark",
                )
            }
            checked => {
                checked?;
                Ok(connection)
            }
        }
    }
}

/// Who acts, for what is kept of it.
#[derive(Debug, Clone, Args)]
pub struct Operator {
    /// Who does this; kept for ever [default: the user's name].
    #[arg(long, env = "MILLRACE_OPERATOR", value_parser = reason)]
    operator: Option<String>,
}

impl Operator {
    /// The name.
    pub fn name(&self) -> String {
        let user = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
        let named = self.operator.clone().or_else(|| user("USER"));
        named
            .or_else(|| user("LOGNAME"))
            .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
    }
}

/// Where `/metrics`, `/livez` and `/readyz` are.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// Where metrics and health are served; port 0 picks a free one.
    #[arg(long, env = "MILLRACE_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Allow ports on addresses beyond loopback, where nothing yet guards them.
    #[arg(long, env = "MILLRACE_INSECURE_BIND")]
    insecure_bind: bool,
}

impl Admin {
    /// The address, unless it is open to others and that was not said to be meant.
    pub fn address(&self, default_port: u16) -> Result<SocketAddr, Usage> {
        let flag = "--admin-listen (MILLRACE_ADMIN_LISTEN)";
        self.guard(flag, self.admin_listen, default_port)
    }

    fn guard(
        &self,
        flag: &str,
        address: Option<SocketAddr>,
        default_port: u16,
    ) -> Result<SocketAddr, Usage> {
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default_port)));
        if address.ip().is_loopback() || self.insecure_bind {
            return Ok(address);
        }
        Err(Usage(format!(
            "{flag} {address} is beyond loopback and has no access control; say --insecure-bind if the \
             network guards it"
        )))
    }
}

/// Where a service listens for its clients.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// Where clients are served; port 0 picks a free one.
    #[arg(long, env = "MILLRACE_LISTEN")]
    listen: Option<SocketAddr>,
}

impl Listen {
    /// The address, on the same terms as the admin port's.
    pub fn address(&self, default_port: u16, admin: &Admin) -> Result<SocketAddr, Usage> {
        admin.guard("--listen (MILLRACE_LISTEN)", self.listen, default_port)
    }
}

/// Binds an address; the error names the flag that gives another one.
pub async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("binding {what}{address} (another {flag} helps; its port 0 picks a free one)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_beyond_loopback_must_be_meant() {
        let admin = |address: &str, insecure_bind| Admin {
            admin_listen: Some(address.parse().unwrap()),
            insecure_bind,
        };
        assert!(admin("0.0.0.0:1", false).address(1).is_err());
        assert!(admin("0.0.0.0:1", true).address(1).is_ok());
        assert!(admin("127.0.0.1:1", false).address(1).is_ok());
        assert!(admin("[::1]:1", false).address(1).is_ok());
    }
}
