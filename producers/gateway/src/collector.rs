//! The results of one request as the receipts come.
//!
//! One counter and one wake-up per request, not a channel per item.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Gauge;
use millrace_publisher::{Error, Receipt};
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::item::Rejection;
use crate::kafka::Kafka;

/// What became of one item.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum ItemResult {
    /// In the log, acknowledged by all in-sync replicas.
    Accepted {
        /// The item's place in the request, from 0; blank lines are not counted.
        index: usize,
        /// The transaction's id.
        id: Uuid,
        /// The Kafka partition.
        partition: i32,
        /// The Kafka offset. Negative when the broker had the record already and no longer knows where.
        offset: i64,
    },
    /// Not a transaction; nothing was published.
    Rejected {
        /// The item's place in the request, from 0; blank lines are not counted.
        index: usize,
        /// The transaction's id, where it could be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        id: Option<Uuid>,
        /// Stable, for programs.
        #[schema(example = "invalid_amount", value_type = String)]
        code: &'static str,
        /// The field that is wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false, example = "amount", value_type = Option<String>)]
        field: Option<Cow<'static, str>>,
        /// What exactly is wrong, and what would be right.
        detail: String,
        /// The line of the body where the JSON is broken, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        line: Option<usize>,
        /// The byte of that line, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        column: Option<usize>,
    },
    /// Kafka has not acknowledged it: it may be in the log or not. Send it again.
    Unacknowledged {
        /// The item's place in the request, from 0; blank lines are not counted.
        index: usize,
        /// The transaction's id.
        id: Uuid,
    },
}

/// All results of a request, and how many of each sort there are.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) items: Vec<ItemResult>,
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
}

impl Results {
    pub(crate) fn unacknowledged(&self) -> usize {
        self.items.len() - self.accepted - self.rejected
    }
}

/// Fills while the answers come.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    results: Results,
    in_flight: usize,
    /// A record was not acknowledged: the rest need not be tried.
    failed: bool,
}

impl Collector {
    /// How many items there are so far.
    pub(crate) fn len(&self) -> usize {
        self.inner().results.items.len()
    }

    /// Whether a record was not acknowledged.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// Receipts are missing.
    pub(crate) fn fail(&self) {
        self.inner().failed = true;
    }

    /// Adds an item that is no transaction.
    pub(crate) fn reject(&self, rejection: Rejection) {
        let mut inner = self.inner();
        let index = inner.results.items.len();
        inner.results.items.push(rejected(index, rejection));
        inner.results.rejected += 1;
    }

    /// Adds an item that is to be published. Its place is its ticket's.
    pub(crate) fn expect(&self, id: Uuid) -> usize {
        let mut inner = self.inner();
        let index = inner.results.items.len();
        inner
            .results
            .items
            .push(ItemResult::Unacknowledged { index, id });
        index
    }

    /// Takes the answer to the item at `index`.
    pub(crate) fn answer(&self, index: usize, id: Uuid, answer: Result<Receipt, Error>) {
        let mut inner = self.inner();
        let Inner {
            results, failed, ..
        } = &mut *inner;
        let Some(item) = results.items.get_mut(index) else {
            return;
        };
        match answer {
            Ok(Receipt { partition, offset }) => {
                *item = ItemResult::Accepted {
                    index,
                    id,
                    partition,
                    offset,
                };
                results.accepted += 1;
            }
            Err(error @ Error::FixRecord(_)) => {
                let rejection = Rejection {
                    id: Some(id),
                    ..Rejection::new("record_refused", error.to_string())
                };
                *item = rejected(index, rejection);
                results.rejected += 1;
            }
            Err(_) => *failed = true,
        }
    }

    /// Waits until every ticket is gone; false when that takes longer than `timeout`.
    pub(crate) async fn settle(&self, timeout: Duration) -> bool {
        let settled = async {
            while self.inner().in_flight > 0 {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(timeout, settled).await.is_ok()
    }

    /// The results; answers that come later find an empty list and change nothing.
    pub(crate) fn results(&self) -> Results {
        std::mem::take(&mut self.inner().results)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rejected(index: usize, rejection: Rejection) -> ItemResult {
    ItemResult::Rejected {
        index,
        id: rejection.id,
        code: rejection.code,
        field: rejection.field,
        detail: rejection.detail,
        line: rejection.position.map(|position| position.line),
        column: rejection.position.map(|position| position.column),
    }
}

/// Travels with a record and brings its answer home. One that is dropped without an answer leaves its
/// item unacknowledged; either way its place in the queue is free again.
pub(crate) struct Ticket {
    index: usize,
    id: Uuid,
    generation: u64,
    kafka: Arc<Kafka>,
    handed_in: Instant,
    collector: Arc<Collector>,
    pending: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    pub(crate) fn new(
        collector: &Arc<Collector>,
        (index, id): (usize, Uuid),
        (kafka, generation): (&Arc<Kafka>, u64),
        pending: &Gauge,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        collector.inner().in_flight += 1;
        pending.increment(1.0);
        Self {
            index,
            id,
            generation,
            kafka: Arc::clone(kafka),
            handed_in: Instant::now(),
            collector: Arc::clone(collector),
            pending: pending.clone(),
            _permit: permit,
        }
    }

    pub(crate) fn answer(self, answer: Result<Receipt, Error>) {
        self.kafka.note(self.generation, self.handed_in, &answer);
        self.collector.answer(self.index, self.id, answer);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.decrement(1.0);
        let mut inner = self.collector.inner();
        inner.in_flight -= 1;
        if inner.in_flight == 0 {
            self.collector.changed.notify_one();
        }
    }
}
