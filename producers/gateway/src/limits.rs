//! Every bound of the gateway, with its reason.

use std::time::Duration;

use millrace_publisher::{Error, Settings};

/// Where to publish, and what clients may ask for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The brokers and the topic. Unless a property says otherwise, a record's delivery may take as
    /// long as its client waits for it, so that an answer of 503 is soon followed by the end of the try.
    pub publisher: Settings,
    /// The bounds.
    pub limits: Limits,
}

/// What clients may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body of `application/json`, and the longest line of NDJSON.
    pub body_json_bytes: usize,
    /// The largest body of NDJSON.
    pub body_ndjson_bytes: usize,
    /// The most items of a request: their results are kept until the answer, some 1 MiB.
    pub items_max: usize,
    /// Items of all requests without an answer from Kafka: some 25 MB, and seconds of its time.
    pub pending_items_max: usize,
    /// Bytes of bodies in memory, over all requests.
    pub buffered_bytes_max: usize,
    /// How long a client waits for receipts once its last item is handed in.
    pub accept_timeout: Duration,
    /// The longest pause between two chunks of a body.
    pub body_timeout: Duration,
    /// How long a body may take in all.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_json_bytes: 1024 * 1024,
            body_ndjson_bytes: 64 * 1024 * 1024,
            items_max: 10_000,
            pending_items_max: 50_000,
            buffered_bytes_max: 256 * 1024 * 1024,
            accept_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_mins(5),
        }
    }
}

impl Options {
    /// The publisher's settings with the time that a record may take.
    pub(crate) fn publisher_settings(&self) -> Settings {
        let mut settings = self.publisher.clone();
        let is_timeout = |name: &str| matches!(name, "delivery.timeout.ms" | "message.timeout.ms");
        if !settings.properties.iter().any(|(name, _)| is_timeout(name)) {
            let timeout = self.limits.accept_timeout.as_millis().to_string();
            settings
                .properties
                .push(("delivery.timeout.ms".into(), timeout));
        }
        settings
    }

    /// A request that fits every other limit must be able to get its permits.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let limits = &self.limits;
        let wrong = |text: String| Err(Error::Settings(text));
        if limits.items_max == 0 || limits.pending_items_max < limits.items_max {
            return wrong(format!(
                "a request of {} items does not fit in {} pending ones",
                limits.items_max, limits.pending_items_max
            ));
        }
        if u32::try_from(limits.pending_items_max).is_err() {
            return wrong(format!(
                "{} pending items are too many",
                limits.pending_items_max
            ));
        }
        if limits.body_json_bytes == 0 || limits.buffered_bytes_max < limits.body_json_bytes {
            return wrong(format!(
                "a body of {} bytes does not fit in {} buffered ones",
                limits.body_json_bytes, limits.buffered_bytes_max
            ));
        }
        Ok(())
    }
}
