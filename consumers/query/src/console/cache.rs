//! What is dear to read, read once for all who ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_http::Problem;
use tokio::sync::Mutex;

use crate::database::Error;
use crate::store::accounts::Largest;
use crate::store::overview::{ByReason, Interval, Totals};
use crate::store::transactions::Entry;

/// A value or why there is none; shared by all who asked at the same time.
pub type Shared<T> = Result<Arc<T>, Problem>;

/// What pages share. Clones share it too.
#[derive(Debug, Clone)]
pub struct Cache {
    /// One index range of batches.
    pub throughput: Kept<Vec<Interval>>,
    /// Counts every batch.
    pub totals: Kept<Totals>,
    /// Reads every balance.
    pub largest: Kept<Vec<Largest>>,
    /// Reads the end of every partition's ledger.
    pub latest: Kept<Vec<Entry>>,
    /// Counts every rejection.
    pub rejections: Kept<Vec<ByReason>>,
    /// Counts every open parked record.
    pub parked: Kept<Vec<ByReason>>,
}

impl Default for Cache {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            throughput: Kept::new(second),
            totals: Kept::new(second),
            largest: Kept::new(second),
            latest: Kept::new(second),
            rejections: Kept::new(second),
            parked: Kept::new(second),
        }
    }
}

/// What was read last, and until when it is good.
type Last<T> = Option<(Instant, Shared<T>)>;

/// A value is kept this many times as long as it took to read: reading is never more than 5 % of a
/// connection's time, however large the tables grow.
const KEEP_PER_COST: u32 = 20;

/// One value, kept for a while. A failure is kept as long: who asks next must not wait for another.
#[derive(Debug)]
pub struct Kept<T> {
    keep_min: Duration,
    last: Arc<Mutex<Last<T>>>,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self {
            keep_min: self.keep_min,
            last: Arc::clone(&self.last),
        }
    }
}

impl<T> Kept<T> {
    fn new(keep_min: Duration) -> Self {
        Self {
            keep_min,
            last: Arc::default(),
        }
    }

    /// The value; read only when the last one is too old, by one at a time while the others wait for it.
    pub async fn get(&self, read: impl Future<Output = Result<T, Error>>) -> Shared<T> {
        let mut last = self.last.lock().await;
        let started = Instant::now();
        if let Some((good_until, value)) = &*last
            && started < *good_until
        {
            return value.clone();
        }
        let value = read.await.map(Arc::new).map_err(Error::into_problem);
        let read_at = Instant::now();
        let keep = self.keep_min.max((read_at - started) * KEEP_PER_COST);
        *last = Some((read_at + keep, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_together_reads_once() {
        let kept = Kept::new(Duration::from_mins(1));
        let reads = AtomicU32::new(0);
        let read = || async {
            tokio::task::yield_now().await;
            Ok(reads.fetch_add(1, Ordering::Relaxed))
        };
        let (a, b) = tokio::join!(kept.get(read()), kept.get(read()));
        assert_eq!((*a.unwrap(), *b.unwrap()), (0, 0));
    }

    #[tokio::test]
    async fn a_failure_is_kept_too() {
        let kept = Kept::<u32>::new(Duration::from_mins(1));
        let failed = kept.get(async { Err(Problem::internal().into()) }).await;
        assert_eq!(failed.unwrap_err().code(), "internal");
        assert!(kept.get(async { Ok(1) }).await.is_err());
    }
}
