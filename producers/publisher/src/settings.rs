//! Where and how to publish.

use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::Error;

/// How many records may be unacknowledged: more than a cluster's round trip can use, and some 50 MB
/// of transactions at most.
pub const IN_FLIGHT_RECORDS_MAX: usize = 100_000;

/// The largest `in_flight_max`: librdkafka's own limit of queued records is twice that.
pub const IN_FLIGHT_RECORDS_LIMIT: usize = 5_000_000;

/// The longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// How many KiB of values may be unacknowledged, whatever their number.
const IN_FLIGHT_KIB_MAX: usize = 64 * 1024;

/// librdkafka's default of `message.max.bytes`.
const RECORD_BYTES_MAX: usize = 1_000_000;

/// Where and how to publish.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of one or more brokers, separated by commas.
    pub brokers: String,
    /// The topic; it must exist.
    pub topic: String,
    /// Properties of librdkafka. They win over the defaults, except those on which the promises rest:
    /// `acks`, `enable.idempotence`, `partitioner`, `delivery.report.only.error` and
    /// `transactional.id` are refused, and so is `bootstrap.servers`.
    pub properties: Vec<(String, String)>,
    /// How many records may be unacknowledged before handing in waits:
    /// 1 to [`IN_FLIGHT_RECORDS_LIMIT`].
    pub in_flight_max: usize,
}

impl Settings {
    /// Settings with the default bound and no further properties.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: topic.into(),
            properties: Vec::new(),
            in_flight_max: IN_FLIGHT_RECORDS_MAX,
        }
    }

    /// The producer's configuration: defaults, then the properties, then what never changes.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        self.check()?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "millrace")
            // A missing topic is reported, never made with the broker's defaults.
            .set("allow.auto.create.topics", "false")
            // The cheapest codec to compress, and consumers decompress each batch too.
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("delivery.timeout.ms", "120000")
            .set("queue.buffering.max.kbytes", IN_FLIGHT_KIB_MAX.to_string())
            // The publisher's own bound comes first. Twice that, because librdkafka counts a record
            // until the whole batch of delivery reports that it is in has been worked off.
            .set(
                "queue.buffering.max.messages",
                (2 * self.in_flight_max).to_string(),
            );
        for (name, value) in &self.properties {
            // Under its other name a default would still be there, and which of the two librdkafka
            // believes is a matter of their order.
            for (default, other) in ALIASES {
                if name == other {
                    config.remove(default);
                }
            }
            config.set(name, value);
        }
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random");
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        if self.brokers.trim().is_empty() {
            return Err(Error::Settings("no broker is given".into()));
        }
        if !is_topic(&self.topic) {
            return Err(Error::Settings(format!(
                "topic {:?} is not 1 to {TOPIC_BYTES_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'",
                self.topic
            )));
        }
        if !(1..=IN_FLIGHT_RECORDS_LIMIT).contains(&self.in_flight_max) {
            return Err(Error::Settings(format!(
                "{} records in flight are not between 1 and {IN_FLIGHT_RECORDS_LIMIT}",
                self.in_flight_max
            )));
        }
        for (name, _) in &self.properties {
            if let Some(why) = fixed(name) {
                return Err(Error::Settings(format!(
                    "property {name} cannot be set: {why}"
                )));
            }
        }
        self.check_queue_bytes()
    }

    /// A record larger than the whole queue would wait for ever.
    fn check_queue_bytes(&self) -> Result<(), Error> {
        let number = |name, default| {
            let value = self.properties.iter().rfind(|(n, _)| n == name);
            value.map_or(Some(default), |(_, value)| value.trim().parse().ok())
        };
        let queue_kib = number("queue.buffering.max.kbytes", IN_FLIGHT_KIB_MAX);
        let record_bytes = number("message.max.bytes", RECORD_BYTES_MAX);
        match (queue_kib, record_bytes) {
            (Some(kib), Some(bytes)) if kib.saturating_mul(1024) < bytes => {
                Err(Error::Settings(format!(
                    "queue.buffering.max.kbytes {kib} cannot hold one record of message.max.bytes {bytes}"
                )))
            }
            // What is not a number is refused by librdkafka itself, with its range.
            _ => Ok(()),
        }
    }
}

/// Defaults of ours that librdkafka knows by another name too.
const ALIASES: [(&str, &str); 3] = [
    ("compression.type", "compression.codec"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// The broker's own rule.
fn is_topic(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
        && name.bytes().all(letter)
        && !matches!(name, "." | "..")
}

/// Values may be secrets: only names are shown.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("properties", &names)
            .field("in_flight_max", &self.in_flight_max)
            .finish()
    }
}

/// The error of a client that could not be made; never with the value of the property.
pub(crate) fn refused(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, why, name, _) => {
            Error::Settings(format!("property {name}: {why}"))
        }
        other => Error::Settings(other.to_string()),
    }
}

/// Why nobody may set this property.
fn fixed(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" | "metadata.broker.list" => "--brokers says where Kafka is",
        "acks" | "request.required.acks" => {
            "a record counts only when all in-sync replicas have it (acks=all)"
        }
        "enable.idempotence" => "a retry must not write a record twice (enable.idempotence=true)",
        "partitioner" => {
            "all debits of an account are in one partition (partitioner=murmur2_random)"
        }
        "delivery.report.only.error" => "every record gets a receipt",
        "transactional.id" => "transactions of Kafka are not used",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::new("localhost:9092", "t");
        settings.properties = properties
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        settings
    }

    #[test]
    fn what_the_promises_rest_on_is_refused() {
        for name in [
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "partitioner",
            "delivery.report.only.error",
            "transactional.id",
        ] {
            let error = settings(&[("linger.ms", "1"), (name, "all")])
                .client_config()
                .unwrap_err();
            assert!(matches!(error, Error::Settings(_)), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn properties_win_over_defaults() {
        let config = settings(&[("linger.ms", "50"), ("security.protocol", "ssl")])
            .client_config()
            .unwrap();
        for (name, value) in [
            ("linger.ms", "50"),
            ("security.protocol", "ssl"),
            ("delivery.timeout.ms", "120000"),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("queue.buffering.max.messages", "200000"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        let config = settings(&[("queue.buffering.max.ms", "50")]).client_config();
        let config = config.unwrap();
        assert_eq!(config.get("queue.buffering.max.ms"), Some("50"));
        assert_eq!(config.get("linger.ms"), None);
    }

    #[test]
    fn bounds_are_checked() {
        let good = settings(&[]);
        let changed = |change: fn(&mut Settings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings
        };
        for (bad, text) in [
            (changed(|s| s.brokers = " ".into()), "no broker"),
            (changed(|s| s.topic.clear()), "topic \"\" is not"),
            (changed(|s| s.topic = "a b".into()), "topic \"a b\" is not"),
            (changed(|s| s.topic = "t".repeat(250)), "is not 1 to 249"),
            (changed(|s| s.in_flight_max = 0), "0 records"),
            (changed(|s| s.in_flight_max = 5_000_001), "5000001 records"),
            (
                settings(&[("queue.buffering.max.kbytes", "10")]),
                "cannot hold one record",
            ),
        ] {
            let error = bad.client_config().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let small = [
            ("queue.buffering.max.kbytes", "10"),
            ("message.max.bytes", "5000"),
        ];
        assert!(settings(&small).client_config().is_ok());
    }

    #[test]
    fn values_are_never_shown() {
        let settings = settings(&[("sasl.pasword", "hunter2")]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let native = settings.client_config().unwrap().create_native_config();
        let error = refused(&native.err().unwrap()).to_string();
        assert!(error.contains("sasl.pasword"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
