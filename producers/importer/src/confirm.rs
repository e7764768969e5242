//! Every delivery counted, every failure with its line.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use millrace_publisher::{Error, Receipt};

/// What the topic answered so far. Callbacks of the publisher write it, the import reads it.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    answered: AtomicU64,
    acknowledged: AtomicU64,
    /// Bounded by what is in flight: the import takes them out and stops handing in more.
    failures: Mutex<Vec<Failure>>,
}

/// A row that was handed in and not acknowledged.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) line: u64,
    pub(crate) error: Error,
}

impl Confirmations {
    /// Notes the answer to the row of a line.
    pub(crate) fn note(&self, line: u64, answer: Result<Receipt, Error>) {
        match answer {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.failures().push(Failure { line, error }),
        }
        self.answered.fetch_add(1, Ordering::Release);
    }

    /// How many rows have an answer, of either sort.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// How many rows were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The failures since the last time.
    pub(crate) fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.failures())
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    /// Whether rows after this one can still go in. Where Kafka only refuses this record they can;
    /// where it does not answer they must not, or an account's debits would go in out of order.
    pub(crate) fn stops(&self) -> bool {
        !matches!(self.error, Error::FixRecord(_))
    }

    /// The error and what caused it.
    pub(crate) fn detail(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
