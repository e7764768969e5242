//! Before a partition is read: what the database and the log say of it must fit.

use std::collections::BTreeMap;

use tracing::{error, warn};

use super::apply::Failure;
use super::{Clock, Lane};
use crate::kafka::assignment::Stop;
use crate::kafka::log::{self, Hint, Log, Topic};
use crate::planted::{self, Bug};
use crate::store::Store;

/// What came of checking partitions.
#[derive(Debug, Default)]
struct Checked {
    /// Those that fit, and where to read from.
    starts: Vec<(i32, i64)>,
    /// Those of which the broker does not tell.
    failed: Vec<(i32, log::Error)>,
}

impl<L: Log, S: Store, C: Clock> Lane<L, S, C> {
    /// Compares the unchecked partitions with the log and starts reading those that fit.
    pub(super) async fn check_assignment(&mut self) {
        let unchecked = self.assignment.unchecked();
        if unchecked.is_empty() || !self.backoff.left(self.clock.monotonic()).is_zero() {
            return;
        }
        match self.check(&unchecked).await {
            Ok(Checked { starts, failed }) => {
                if let Err(failure) = self.log.start(&starts).await {
                    self.fail(starts.iter().map(|(partition, _)| *partition), &failure);
                }
                for (partition, failure) in failed {
                    self.fail([partition].into_iter(), &failure);
                }
            }
            Err(failure) => self.fail(unchecked.into_iter(), &failure),
        }
        self.report_health().await;
    }

    async fn check(&mut self, unchecked: &[i32]) -> Result<Checked, Failure> {
        let topic = self.log.topic().await?;
        let mut checked = Checked::default();
        let mut bounds = BTreeMap::new();
        for partition in unchecked.iter().filter(|p| self.served.has(**p)) {
            // One without a leader does not keep the others waiting.
            match self.log.bounds(*partition).await {
                Ok(found) => drop(bounds.insert(*partition, found)),
                Err(failure) => checked.failed.push((*partition, failure)),
            }
        }
        let known: Vec<_> = bounds.keys().copied().collect();
        // Read before the positions, which only grow.
        let hints = self.log.hints(&known).await?;
        let log_starts: Vec<_> = bounds.iter().map(|(p, b)| (*p, b.start)).collect();
        let attached = self.store.attach(&topic, &log_starts).await?;
        self.follow_connection();
        let misfit = misfit(&attached.topic, &topic);
        self.topic = Some(attached.topic);
        self.database = Some(attached.database);
        self.served = attached.served;
        checked.failed.retain(|(p, _)| self.served.has(*p));
        let told = self.told_of_all(&topic).await?;
        if let Some(stop) = misfit.or_else(|| self.shared_group(&told)) {
            for partition in unchecked {
                self.stop(*partition, stop.clone());
            }
            return Ok(Checked::default());
        }
        for partition in unchecked.iter().filter(|p| !self.served.has(**p)) {
            self.assignment.leave(*partition);
            self.board.remove(std::iter::once(*partition));
        }
        for position in &attached.positions {
            let partition = position.partition;
            let Some(mut bounds) = bounds.get(&partition).copied() else {
                continue;
            };
            if position.position > bounds.end {
                // Another owner may have applied what came after the bounds were read.
                match self.log.bounds(partition).await {
                    Ok(found) => bounds = found,
                    Err(failure) => {
                        checked.failed.push((partition, failure));
                        continue;
                    }
                }
            }
            let anchored_at = position.anchor.and_then(|anchor| anchor.timestamp);
            self.board.taken_over(partition, anchored_at);
            let hint = hints
                .iter()
                .find(|hint| hint.partition == partition && hint.database == attached.database);
            match self.assignment.check(position, bounds, hint) {
                Ok(offset) => checked.starts.push((partition, offset)),
                Err(stop) => self.stop(partition, stop),
            }
        }
        Ok(checked)
    }

    /// What the group was told of all partitions, where the database serves some of them: it needs a group of its
    /// own. In one that it shares, its partitions are given to lanes of the other, which leave them alone.
    pub(super) async fn told_of_all(&mut self, topic: &Topic) -> Result<Vec<Hint>, log::Error> {
        if self.served.is_all() {
            return Ok(Vec::new());
        }
        let all: Vec<_> = (0..topic.partitions).collect();
        self.log.hints(&all).await
    }

    /// Whether another database has told it.
    pub(super) fn shared_group(&self, told: &[Hint]) -> Option<Stop> {
        let other = told
            .iter()
            .find(|hint| Some(hint.database) != self.database)?;
        Some(Stop::SharedGroup {
            partition: other.partition,
            database: other.database,
        })
    }

    /// Partitions that were checked on another connection are checked again, also those that have nothing
    /// to apply: the database may have gone back, and they would wait beyond its position for ever.
    pub(super) fn follow_connection(&mut self) {
        let connections = self.store.connections();
        if connections != self.connections && !planted::has(Bug::TrustConnection) {
            self.connections = connections;
            let active: Vec<_> = self.assignment.positions().map(|(p, _)| p).collect();
            self.recheck(&active);
        }
    }

    pub(super) fn stop(&mut self, partition: i32, stop: Stop) {
        if self.told.get(&partition) != Some(&stop) {
            error!(partition, reason = %stop, "the partition is stopped until an operator acts");
            self.told.insert(partition, stop.clone());
        }
        self.log.hold(&[partition]);
        self.watch.retain(|watched| watched != partition);
        self.assignment.stop(partition, stop);
    }

    /// Something failed: the partitions are checked again after a wait.
    pub(super) fn fail(
        &mut self,
        partitions: impl Iterator<Item = i32>,
        failure: &dyn std::error::Error,
    ) {
        let wait = self.backoff.fail(self.clock.monotonic(), &mut self.random);
        let partitions: Vec<_> = partitions.collect();
        let wait_ms = wait.as_millis();
        warn!(error = %failure, ?partitions, wait_ms, "cannot go on: trying again");
        let trouble = failure.to_string();
        self.troubles
            .extend(partitions.iter().map(|p| (*p, trouble.clone())));
        if !planted::has(Bug::NoRecheck) {
            self.recheck(&partitions);
        }
    }

    /// What is known of the partitions is in doubt: they begin anew.
    pub(super) fn recheck(&mut self, partitions: &[i32]) {
        self.memory.clear();
        for partition in partitions {
            self.assignment.recheck(*partition);
        }
        self.log.hold(partitions);
    }
}

/// Why the database cannot apply this topic, if it cannot.
pub(super) fn misfit(known: &Topic, found: &Topic) -> Option<Stop> {
    if known.name != found.name {
        let (known, found) = (known.name.clone(), found.name.clone());
        return Some(Stop::OtherTopic { known, found });
    }
    (known.partitions != found.partitions).then_some(Stop::PartitionCount {
        known: known.partitions,
        found: found.partitions,
    })
}
