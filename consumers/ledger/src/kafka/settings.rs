//! Where Kafka is, and what its client is told.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use crate::kafka::log::Error;

/// Properties that the protocol depends on: setting one of them is an error.
pub const FIXED_PROPERTIES: [(&str, &str); 7] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("statistics.interval.ms", "1000"),
];

/// Defaults that a property may override.
const DEFAULT_PROPERTIES: [(&str, &str); 10] = [
    ("client.id", "millrace-ledger"),
    // A replica that is gone is missed after this time: the least that a broker takes by default.
    ("session.timeout.ms", "6000"),
    // The others hear of a rebalance with their next heartbeat.
    ("heartbeat.interval.ms", "500"),
    ("fetch.wait.max.ms", "100"),
    // Prefetch about a batch, and little enough to stay small: per lane.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "2048"),
    // What one answer may bring on top of that, compressed; of a single larger record all.
    ("fetch.max.bytes", "1048576"),
    // The default of one second lets a full queue run dry.
    ("fetch.queue.backoff.ms", "10"),
    ("socket.keepalive.enable", "true"),
    // A broker that is back is noticed within this time; the default is ten seconds.
    ("reconnect.backoff.max.ms", "1000"),
];

/// What a consumer needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic to read.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Any other librdkafka property, except [`FIXED_PROPERTIES`].
    pub properties: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn config(&self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULT_PROPERTIES {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            if let Some(why) = fixed(name) {
                return Err(Error::Settings(format!(
                    "property {name} cannot be set: {why}"
                )));
            }
            config.set(name, value);
        }
        for (name, value) in FIXED_PROPERTIES {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group);
        Ok(config)
    }
}

/// Why nobody may set this property.
fn fixed(name: &str) -> Option<&'static str> {
    match name {
        "bootstrap.servers" | "metadata.broker.list" => Some("--brokers says where Kafka is"),
        "group.id" => Some("--group names the consumer group"),
        _ => FIXED_PROPERTIES
            .iter()
            .any(|(fixed, _)| *fixed == name)
            .then_some("the protocol depends on it"),
    }
}

/// The error of a client that could not be made; never with the value of a property.
pub fn refused(error: &KafkaError) -> Error {
    Error::Settings(match error {
        KafkaError::ClientConfig(_, why, name, _) => format!("property {name}: {why}"),
        other => other.to_string(),
    })
}
