//! What a run's figures depend on beside its parameters.

use std::collections::BTreeMap;

use crate::machine;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::meter::Meter;
use crate::processes;
use crate::programs::Millrace;

/// The settings of Postgres that are kept.
const SETTINGS: [&str; 11] = [
    "autovacuum",
    "checkpoint_timeout",
    "data_checksums",
    "fsync",
    "full_page_writes",
    "max_wal_size",
    "server_version",
    "shared_buffers",
    "synchronous_commit",
    "wal_buffers",
    "wal_compression",
];

/// The machine and the versions. Nothing that names the machine or a directory on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Cores that this process may use; everything runs on them.
    pub cores: usize,
    /// The model of the first.
    pub cpu: String,
    /// Memory of the machine.
    pub memory_mib: u64,
    /// Linux' release.
    pub kernel: String,
    /// Postgres' settings and version.
    pub postgres: BTreeMap<String, String>,
    /// Kafka's version, where its command line shows it.
    pub kafka: Option<String>,
    /// How many brokers there are to speak to.
    pub brokers: usize,
    /// The version of the Kafka client library.
    pub librdkafka: String,
    /// What `millrace --version` says.
    pub millrace: String,
    /// The commit of the working directory, with a plus sign when something was changed since.
    pub commit: Option<String>,
}

impl Conditions {
    /// Reads them all.
    pub async fn read(
        connection: &mut PgConnection,
        meter: &Meter,
        millrace: &Millrace,
        brokers: &str,
    ) -> anyhow::Result<Self> {
        let settings: Vec<(String, String)> = sqlx::query_as(
            "select name, current_setting(name) from pg_settings where name = any($1)",
        )
        .bind(&SETTINGS[..])
        .fetch_all(connection)
        .await?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: machine::cpu_model(),
            memory_mib: processes::memory_kib().unwrap_or(0) / 1024,
            kernel: machine::kernel(),
            postgres: settings.into_iter().collect(),
            kafka: meter.broker_command().as_deref().and_then(kafka_version),
            brokers: brokers.split(',').count(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            millrace: millrace.version()?,
            commit: machine::commit(),
        })
    }
}

impl Conditions {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let settings: Vec<_> = self
            .postgres
            .iter()
            .filter(|(name, _)| *name != "server_version")
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        format!(
            "{} cores ({}), {} MiB, Linux {}; Kafka {}, {} broker(s), librdkafka {}; Postgres {} ({}); {}, \
             commit {}.",
            self.cores,
            self.cpu,
            self.memory_mib,
            self.kernel,
            self.kafka.as_deref().unwrap_or("(version unknown)"),
            self.brokers,
            self.librdkafka,
            self.postgres
                .get("server_version")
                .map_or("?", String::as_str),
            settings.join(", "),
            self.millrace,
            self.commit.as_deref().unwrap_or("unknown"),
        )
    }
}

/// The database's clock: UTC, in RFC 3339.
pub async fn clock(connection: &mut PgConnection) -> anyhow::Result<String> {
    let query = "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}

/// From a class path that has a directory or a jar such as `kafka-4.1.0` or `kafka-server-4.1.0.jar`.
fn kafka_version(command: &str) -> Option<String> {
    command
        .split(['/', ':', ' '])
        .filter(|part| part.starts_with("kafka"))
        .filter_map(|part| part.rsplit_once('-'))
        .map(|(_, version)| version.trim_end_matches(".jar").to_owned())
        .find(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_version_is_in_its_class_path() {
        for (command, version) in [
            ("java -cp /opt/kafka-4.1.0/* kafka.Kafka x", Some("4.1.0")),
            (
                "java -cp a.jar:/l/kafka-server-3.9.1.jar kafka.Kafka",
                Some("3.9.1"),
            ),
            ("java -cp /kafka-one/libs/* kafka.Kafka", None),
        ] {
            assert_eq!(kafka_version(command).as_deref(), version, "{command}");
        }
    }
}
