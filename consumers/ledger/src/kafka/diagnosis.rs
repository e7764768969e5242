//! What a lane would say of a partition, asked by an operator.

use std::time::{Duration, Instant};

use crate::kafka::assignment::{Assignment, Stop};
use crate::kafka::log::{Bounds, Error, Log};
use crate::record::Intake;
use crate::store::positions::Found;

/// How long the last applied record is waited for.
const ANCHOR_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one turn waits for the log.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// Compares a position with its log as a lane does before it reads on: gives what would stop the
/// partition, if anything would, and what the log holds. `log` is no member of the group.
pub async fn diagnose(log: &mut impl Log, found: &Found) -> Result<(Option<Stop>, Bounds), Error> {
    let Found { database, position } = found;
    let partition = position.partition;
    let bounds = log.bounds(partition).await?;
    let hints = log.hints(&[partition]).await?;
    let hint = hints.iter().find(|hint| hint.database == *database);
    let mut assignment = Assignment::default();
    assignment.assign(&[partition]);
    let from = match assignment.check(position, bounds, hint) {
        Ok(from) => from,
        Err(stop) => return Ok((Some(stop), bounds)),
    };
    log.start(&[(partition, from)]).await?;
    let begun = Instant::now();
    let mut intake = Intake::default();
    let stop = loop {
        if let Some((_, stop)) = assignment.take_stops().pop() {
            break Some(stop);
        }
        if assignment.is_recognised(partition) {
            break None;
        }
        if begun.elapsed() > ANCHOR_TIMEOUT {
            return Err(Error::Unavailable(format!(
                "partition {partition}: nothing comes from offset {from}"
            )));
        }
        log.poll(POLL_WAIT, &mut intake).await;
        intake.retain(|record, key, value| assignment.take(record, key, value));
        for (partition, end) in intake.take_ends() {
            assignment.end(partition, end);
        }
        intake.clear();
        for doubtful in assignment.doubts() {
            log.start(&[(doubtful, from)]).await?;
            assignment.sought(doubtful);
        }
    };
    log.hold(&[partition]);
    Ok((stop, bounds))
}
