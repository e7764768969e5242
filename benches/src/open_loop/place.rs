//! The servers and services of one run.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use millrace_benches::meter::{Meter, Services as Measured};
use millrace_benches::processes;
use millrace_benches::programs::Millrace;
use millrace_benches::scratch::{Scratch, Servers};
use millrace_benches::services::{self, Services, address};
use millrace_publisher::Settings as PublisherSettings;
use sqlx::{Connection as _, PgConnection};

use crate::cli::Settings;

/// The topic of dev mode: the default of `millrace`.
const DEV_TOPIC: &str = "transactions.submitted";

/// Where everything is.
#[derive(Debug)]
pub struct Place {
    pub gateway: SocketAddr,
    pub query: SocketAddr,
    /// Where to publish.
    pub publisher: PublisherSettings,
    /// For tools.
    pub environment: Vec<(&'static str, String)>,
    pub connection: PgConnection,
    pub brokers: String,
    pub meter: Meter,
    /// In dev mode the broker is in the services' own process.
    is_dev: bool,
}

/// CPU since some moment, in microseconds, by who spent it.
pub type Spent = BTreeMap<String, u64>;

impl Place {
    /// Each service as a process of its own, on an empty database and topic.
    pub async fn start(
        millrace: &Millrace,
        servers: &Servers,
        scratch: &Scratch,
        settings: &Settings,
        services: &mut Services<'_>,
    ) -> anyhow::Result<Self> {
        let environment = scratch.environment();
        let [partitions, lanes] = [settings.partitions, settings.lanes].map(|n| n.to_string());
        for tool in [
            &["migrate"][..],
            &["topics", "create", "--partitions", &partitions],
        ] {
            let arguments: Vec<_> = tool.iter().map(ToString::to_string).collect();
            millrace.run(&arguments, &environment).await?;
        }
        services.start("ledger", &["--lanes", &lanes], &environment)?;
        services.start("project", &[], &environment)?;
        let gateway = services.serve("gateway", &environment).await?;
        let query = services.serve("query", &environment).await?;
        Ok(Self {
            gateway,
            query,
            publisher: scratch.publisher(),
            environment,
            connection: scratch.connect().await?,
            brokers: servers.brokers.clone(),
            meter: Meter::new(servers).await?,
            is_dev: false,
        })
    }

    /// All of them as one `millrace dev`.
    pub async fn start_dev(
        settings: &Settings,
        services: &mut Services<'_>,
    ) -> anyhow::Result<Self> {
        let partitions = settings.partitions.to_string();
        let flags = ["--rate", "0", "--partitions", &partitions];
        let dev = services.start("dev", &flags, &[])?;
        let query = dev.said("The console:\n\n  http://").await?;
        let gateway = dev.said("curl -sS http://").await?;
        let brokers = dev.said("MILLRACE_BROKERS=").await?;
        let database_url = dev.said("DATABASE_URL=").await?;
        let servers = Servers {
            brokers: brokers.clone(),
            database: database_url.parse().context("dev mode's database")?,
        };
        let connection = PgConnection::connect(&database_url).await?;
        Ok(Self {
            gateway: address(&gateway)?,
            query: address(&query)?,
            publisher: PublisherSettings::new(&brokers, DEV_TOPIC),
            environment: vec![
                ("MILLRACE_BROKERS", brokers.clone()),
                ("DATABASE_URL", database_url),
            ],
            connection,
            brokers,
            meter: Meter::new(&servers).await?,
            is_dev: true,
        })
    }

    /// Waits until every partition is served.
    pub async fn ready(&mut self, settings: &Settings) -> anyhow::Result<()> {
        services::joined(&mut self.connection, settings.partitions).await
    }

    /// What everybody has spent so far; `machine` is the sum of all, strangers included.
    pub async fn spent(&mut self, services: &Services<'_>) -> anyhow::Result<Spent> {
        let none = Measured::default();
        let reading = self.meter.read(&mut self.connection, &none).await?;
        let kafka = reading.kafka.filter(|_| !self.is_dev);
        let servers = [("postgres", reading.postgres), ("kafka", kafka)];
        let servers = servers.map(|(name, micros)| Some((name, micros?)));
        let others = [
            ("client", processes::cpu(std::process::id())?),
            ("machine", processes::machine_cpu()?),
        ];
        let all = services.cpu()?.into_iter().chain(others);
        let all = all.chain(servers.into_iter().flatten());
        Ok(all
            .map(|(name, micros)| (name.to_owned(), micros))
            .collect())
    }
}

/// What was spent between two moments, per transaction, and by others than those who are named.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a few hours, and counts far below 2^53"
)]
pub fn costs(before: &Spent, after: &Spent, transactions: u64) -> BTreeMap<String, f64> {
    let per_transaction = |micros: u64| micros as f64 / transactions.max(1) as f64;
    let mut others = 0;
    let mut costs = BTreeMap::new();
    for (name, micros) in after {
        let spent = micros.saturating_sub(before.get(name).copied().unwrap_or(0));
        if name == "machine" {
            others += i128::from(spent);
        } else {
            others -= i128::from(spent);
            costs.insert(name.clone(), per_transaction(spent));
        }
    }
    let others = u64::try_from(others).unwrap_or(0);
    costs.insert("others".into(), per_transaction(others));
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_named_spent_is_others() {
        let spent = |all: [(&str, u64); 3]| all.map(|(name, n)| (name.to_owned(), n)).into();
        let before = spent([("gateway", 100), ("kafka", 50), ("machine", 1_000)]);
        let after = spent([("gateway", 500), ("kafka", 150), ("machine", 2_000)]);
        let costs = costs(&before, &after, 100);
        let expected = [("gateway", 4.0), ("kafka", 1.0), ("others", 5.0)];
        assert_eq!(
            costs,
            expected.map(|(name, us)| (name.to_owned(), us)).into()
        );
    }
}
