//! A record in flight, its receipt, and the delivery reports that decide what became of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Error;
use crate::metrics::Meters;

/// Where a record is: acknowledged by all in-sync replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The record's partition.
    pub partition: i32,
    /// The record's offset. Negative when the broker had the record already, from an attempt whose
    /// answer was lost, and no longer knows where.
    pub offset: i64,
}

/// What became of the records handed in so far.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Records with a receipt.
    pub acknowledged: u64,
    /// Records without one, those refused at once included.
    pub failed: u64,
    /// The first failure.
    pub first_error: Option<Error>,
}

/// The answer to one record, as a future. Dropping it does not cancel the record.
#[must_use = "only the receipt proves that the record was published"]
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Receipt, Error>>);

impl Delivery {
    /// The future, and what completes it.
    pub(crate) fn new() -> (Self, impl FnOnce(Result<Receipt, Error>) + Send + 'static) {
        let (sender, receiver) = oneshot::channel();
        let complete = |result| {
            // Nobody has to wait for it.
            let _ = sender.send(result);
        };
        (Self(receiver), complete)
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(Error::Retry(KafkaError::Canceled))))
    }
}

/// Called once with the answer, on the thread that polls the producer.
pub(crate) type OnDelivery = Box<dyn FnOnce(Result<Receipt, Error>) + Send>;

/// What travels through librdkafka with a record.
pub(crate) struct InFlight {
    /// Given back after the answer was passed on.
    _slot: OwnedSemaphorePermit,
    handed_in: Instant,
    /// A mutex only because librdkafka's opaque must be `Sync`; never contended.
    on_delivery: Mutex<OnDelivery>,
}

impl InFlight {
    pub(crate) fn new(slot: OwnedSemaphorePermit, on_delivery: OnDelivery) -> Self {
        Self {
            _slot: slot,
            handed_in: Instant::now(),
            on_delivery: Mutex::new(on_delivery),
        }
    }
}

/// Receives the delivery reports and counts them.
pub(crate) struct Deliveries {
    pub(crate) meters: Meters,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<Error>,
    /// When somebody was last told that Kafka is not well.
    told_at: Mutex<Option<Instant>>,
}

/// An outage is an error many times a second: it is told of this often.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self {
            meters: Meters::new(),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            first_error: OnceLock::new(),
            told_at: Mutex::new(None),
        }
    }

    fn is_time_to_tell(&self) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = told_at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL);
        if is_time {
            *told_at = Some(Instant::now());
        }
        is_time
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            acknowledged: self.acknowledged.load(Ordering::Acquire),
            failed: self.failed.load(Ordering::Acquire),
            first_error: self.first_error.get().cloned(),
        }
    }

    /// A record that has no receipt.
    pub(crate) fn count_failure(&self, error: &Error) {
        if self.first_error.get().is_none() {
            // Another thread may have been first.
            let _ = self.first_error.set(error.clone());
        }
        self.failed.fetch_add(1, Ordering::Release);
        self.meters.failed.increment(1);
    }

    fn count_receipt(&self, handed_in: Instant) {
        self.acknowledged.fetch_add(1, Ordering::Release);
        self.meters.acknowledged.increment(1);
        self.meters.delivery_seconds.record(handed_in.elapsed());
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            tracing::error!(reason, "the producer is broken for good; connect a new one");
        } else if self.is_time_to_tell() {
            tracing::warn!(%error, reason, "kafka is not well; the producer goes on trying");
        } else {
            tracing::debug!(%error, reason, "kafka is not well");
        }
    }

    /// librdkafka's own lines say the same again, once per try and broker.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(fac, "librdkafka: {message}");
            }
            _ => tracing::debug!(fac, "librdkafka: {message}"),
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, report: &DeliveryResult<'_>, record: Box<InFlight>) {
        let result = match report {
            Ok(message) => Ok(Receipt {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(Error::at_delivery(error.clone())),
        };
        match &result {
            Ok(_) => self.count_receipt(record.handed_in),
            Err(error) => self.count_failure(error),
        }
        self.meters.in_flight.decrement(1.0);
        let on_delivery = record
            .on_delivery
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // A panic here would end the polling thread, and with it every later receipt.
        if catch_unwind(AssertUnwindSafe(|| on_delivery(result))).is_err() {
            tracing::error!("a delivery callback panicked; its record's answer is lost");
        }
    }
}
