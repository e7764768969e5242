//! The few faults with a target, many times each: how soon the victim's partitions are processed again.

use std::time::Duration;

use anyhow::bail;
use millrace_benches::results::say;
use serde::Serialize;
use tokio::time::sleep;

use crate::faults::{Fault, Kind};
use crate::options::Options;
use crate::record::{FaultRecord, Spread, seconds};
use crate::run::{Session, keep};

/// Kafka's default limit, and what a broker may be told to allow.
const SESSION_TIMEOUTS_MS: [u32; 2] = [6_000, 3_000];

/// What is struck: owners that die, leave, or freeze with rows locked.
const KINDS: [Kind; 3] = [Kind::KillReplica, Kind::Drain, Kind::FreezeInCopy];

/// How long a victim stays away or frozen: longer than any target.
const HOLD: Duration = Duration::from_secs(12);

/// The same of one that has said good-bye.
const HOLD_DRAINED: Duration = Duration::from_secs(3);

/// Work goes on for a while before a fault.
const QUIET: Duration = Duration::from_secs(2);

/// One line of the table.
#[derive(Debug, Serialize)]
struct Figure {
    kind: Kind,
    session_timeout_ms: u32,
    times: usize,
    median_ms: Option<u64>,
    max_ms: Option<u64>,
    target_ms: u64,
    not_recovered: usize,
}

/// Strikes each kind so often with each session timeout, and judges. Gives everything that failed; a missed
/// target is told, and no failure.
pub async fn run(options: &Options, times: u32) -> anyhow::Result<Vec<String>> {
    if options.replicas < 2 {
        bail!("another replica must be there to take over: --replicas 3");
    }
    let mut figures = Vec::new();
    let mut failures = Vec::new();
    for session_timeout_ms in SESSION_TIMEOUTS_MS {
        let options = Options {
            session_timeout_ms,
            ..options.clone()
        };
        let mut session = Session::start(&options, options.session_timeout()).await?;
        let name = session.cluster.name.clone();
        for kind in KINDS {
            let records = strike(&mut session, &options, kind, times).await?;
            for record in &records {
                keep(options.results.as_deref(), &name, record)?;
            }
            figures.push(Figure::of(kind, session_timeout_ms, &records));
        }
        let outcome = session.finish().await?;
        say(&outcome.judgement.line());
        failures.extend(outcome.failures);
    }
    say(&format!(
        "{:<36} {:>9} {:>6} {:>18} {:>9}",
        "fault", "session", "times", "recovered, s", "target"
    ));
    for figure in &figures {
        say(&figure.line());
        keep(options.results.as_deref(), "recovery", figure)?;
    }
    for failure in &failures {
        say(&format!("FAILED: {failure}"));
    }
    Ok(failures)
}

async fn strike(
    session: &mut Session,
    options: &Options,
    kind: Kind,
    times: u32,
) -> anyhow::Result<Vec<FaultRecord>> {
    let mut records = Vec::new();
    for number in 1..=times {
        session
            .cluster
            .balanced(session.positions.partitions())
            .await?;
        sleep(QUIET).await;
        let fault = Fault {
            number,
            kind,
            seed: options.seed + u64::from(number),
            pause: 1.0,
            with_next: false,
        };
        let mut striker = session.striker(options.session_timeout());
        striker.hold = Some(match kind {
            Kind::Drain => HOLD_DRAINED,
            _ => HOLD,
        });
        let record = striker.strike(fault, false).await;
        say(&record.line());
        session.failures.extend(record.failure());
        records.push(record);
    }
    Ok(records)
}

impl Figure {
    fn of(kind: Kind, session_timeout_ms: u32, records: &[FaultRecord]) -> Self {
        let spread = Spread::of(records.iter().filter_map(|record| record.recovered_ms));
        let unrecovered = records
            .iter()
            .filter(|record| record.recovered_ms.is_none());
        Self {
            kind,
            session_timeout_ms,
            times: records.len(),
            median_ms: spread.median_ms,
            max_ms: spread.max_ms,
            target_ms: match kind {
                Kind::Drain => 1_000,
                _ => u64::from(session_timeout_ms) + 2_000,
            },
            not_recovered: unrecovered.count(),
        }
    }

    fn line(&self) -> String {
        let spread = Spread {
            median_ms: self.median_ms,
            max_ms: self.max_ms,
        };
        let is_met = self.not_recovered == 0 && self.max_ms <= Some(self.target_ms);
        format!(
            "{:<36} {:>7} s {:>6} {:>18} {:>7} s  {}",
            self.kind.name(),
            seconds(Some(self.session_timeout_ms.into())),
            self.times,
            spread.to_string(),
            seconds(Some(self.target_ms)),
            if is_met { "met" } else { "MISSED" }
        )
    }
}
