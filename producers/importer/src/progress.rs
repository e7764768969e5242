//! The bar on a terminal, or lines in the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::options::Progress;
use crate::summary::rows_per_second;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINES_INTERVAL: Duration = Duration::from_secs(5);

/// What progress is shown of.
#[derive(Debug)]
pub(crate) struct Meter {
    /// The size of the file as it is on disk, where that is known.
    pub(crate) size_bytes: Option<u64>,
    /// How much of that was read.
    pub(crate) read_bytes: Arc<AtomicU64>,
    /// Rows read so far.
    pub(crate) rows: AtomicU64,
    /// Rows refused so far.
    pub(crate) refused: AtomicU64,
}

/// Shows progress until it is dropped; never returns.
pub(crate) async fn show(how: Progress, meter: &Meter) -> Infallible {
    match how {
        Progress::Bar => show_bar(meter).await,
        Progress::Lines => show_lines(meter).await,
    }
}

async fn show_bar(meter: &Meter) -> Infallible {
    let bar = Bar(ProgressBar::with_draw_target(
        meter.size_bytes,
        ProgressDrawTarget::stderr(),
    ));
    // Rows are what people count in; the share and the time left come from the bytes of the file.
    let template = match meter.size_bytes {
        Some(_) => "{bar:32} {percent:>3} %  {msg}  ETA {eta}",
        None => "{spinner} {bytes} read  {msg}  {elapsed}",
    };
    bar.0
        .set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    ticks(BAR_INTERVAL, |elapsed| {
        let rows = meter.rows.load(Ordering::Relaxed);
        let rate = rows_per_second(rows, elapsed);
        bar.0
            .set_message(match meter.refused.load(Ordering::Relaxed) {
                0 => format!("{rows} rows, {rate} rows/s"),
                refused => format!("{rows} rows, {rate} rows/s, {refused} refused"),
            });
        bar.0.set_position(meter.read_bytes.load(Ordering::Relaxed));
        bar.0.tick();
    })
    .await
}

async fn show_lines(meter: &Meter) -> Infallible {
    ticks(LINES_INTERVAL, |elapsed| {
        let rows = meter.rows.load(Ordering::Relaxed);
        let read = meter.read_bytes.load(Ordering::Relaxed);
        let left = meter
            .size_bytes
            .and_then(|size| time_left(elapsed, read, size));
        tracing::info!(
            rows,
            refused = meter.refused.load(Ordering::Relaxed),
            rows_per_second = rows_per_second(rows, elapsed),
            percent = meter.size_bytes.map(|size| read * 100 / size.max(1)),
            seconds_left = left.map(|left| left.as_secs()),
            "importing"
        );
    })
    .await
}

async fn ticks(every: Duration, mut show: impl FnMut(Duration)) -> Infallible {
    let start = Instant::now();
    let mut ticks = interval_at(start + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        show(start.elapsed());
    }
}

/// At the speed so far; `None` before anything was read.
fn time_left(elapsed: Duration, read: u64, size: u64) -> Option<Duration> {
    let left = elapsed.as_micros() * u128::from(size.saturating_sub(read));
    let micros = left.checked_div(u128::from(read))?;
    u64::try_from(micros).ok().map(Duration::from_micros)
}

/// Leaves the terminal clean for the summary, however the import ends.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_rest() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(second, 0, 100), None);
        assert_eq!(time_left(second, 25, 100), Some(3 * second));
        assert_eq!(time_left(second, 100, 100), Some(Duration::ZERO));
        assert_eq!(time_left(second, 200, 100), Some(Duration::ZERO));
    }
}
