//! `millrace generate`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use millrace_generator::{IdVersion, Progress, Skew, Workload, run as publish};
use millrace_ledger::group::SystemClock;
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_rules::Currency;
use tracing::info;

use crate::cli::{Kafka, Usage, print};
use crate::shutdown;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Flags of `millrace generate`.
#[derive(Debug, Args)]
#[command(
    after_help = "The same flags and seed give the same transactions, ids included, as long as --start is the same.

Examples:
  millrace generate --count 1000000
  millrace generate --count 60000 --rate 1000 --skew zipf:1.0 --accounts 100000 --seed 7"
)]
pub struct Flags {
    /// How many transactions.
    #[arg(long, default_value_t = 10_000, allow_negative_numbers = true)]
    count: u64,
    /// Transactions per second, as an open loop [default: as fast as possible].
    #[arg(long, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// How many accounts.
    #[arg(long, default_value_t = 100_000, allow_negative_numbers = true)]
    accounts: u64,
    /// uniform or zipf:EXPONENT.
    #[arg(long, default_value = "uniform")]
    skew: Skew,
    /// Another seed gives other transactions.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    /// v7 (ordered by time) or v4 (random).
    #[arg(long, default_value = "v7")]
    ids: IdVersion,
    /// The currency of all of them.
    #[arg(long, default_value = "EUR", value_parser = currency)]
    currency: Currency,
    /// Share of deposits from and withdrawals to the outside, 0 to 1.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    external_share: f64,
    /// When the first one occurs, microseconds since 1970 [default: now].
    #[arg(long, allow_negative_numbers = true)]
    start: Option<i64>,
    #[command(flatten)]
    kafka: Kafka,
}

/// Generates.
pub async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let workload = Workload {
        count: flags.count,
        rate: flags.rate,
        accounts: flags.accounts,
        skew: flags.skew,
        seed: flags.seed,
        id_version: flags.ids,
        currency: flags.currency,
        external_share: flags.external_share,
        start_micros: flags
            .start
            .unwrap_or_else(|| SystemClock::default().wall_micros()),
    };
    workload
        .transactions()
        .map_err(|error| Usage(error.to_string()))?;
    let publisher = flags.kafka.publisher().await?;
    let mut shown = Duration::ZERO;
    let progress = |progress: Progress| {
        if progress.elapsed >= shown + PROGRESS_INTERVAL {
            shown = progress.elapsed;
            let Progress {
                acknowledged,
                count,
                failed,
                ..
            } = progress;
            info!(acknowledged, count, failed, "generating");
        }
    };
    let stop = async {
        if shutdown::requested().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let summary = publish(&publisher, &workload, progress, stop).await?;
    print(&format!(
        "{} of {} transactions acknowledged in {:.1} s: {:.0}/s, {} failed",
        summary.acknowledged,
        flags.count,
        summary.elapsed.as_secs_f64(),
        summary.records_per_second(),
        summary.failed
    ));
    if let Some(error) = &summary.first_error {
        print(&format!("the first failure: {error}"));
    }
    let complete = summary.acknowledged == flags.count;
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).ok_or_else(|| "not an ISO 4217 code with minor units".into())
}
