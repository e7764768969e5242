//! Each second: how the partitions are, for people and for the broker; proofs that nothing is missed.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::check::misfit;
use super::watch::Pace;
use super::{Clock, Lane};
use crate::kafka::assignment::State;
use crate::kafka::log::{Hint, Log, Topic};
use crate::observe;
use crate::planted::{self, Bug};
use crate::store::{PartitionStatus, Store};

/// How often a lane says how its partitions are, hints to the broker and looks for empty tails.
const TICK: Duration = Duration::from_secs(1);

/// How many ticks without a record make a partition's tail worth proving: at once where the lane has
/// nothing to do; where it has, records may be waiting behind those of other partitions.
const PATIENCE_IDLE: u32 = 1;
const PATIENCE_BUSY: u32 = 15;

/// How often the topic's partition count is read again: with another one keys change their places.
const TOPIC_INTERVAL: Duration = Duration::from_secs(10);

impl<L: Log, S: Store, C: Clock> Lane<L, S, C> {
    /// Each second: status for people, a hint for the broker, proofs of empty tails.
    pub(super) async fn tick(&mut self) {
        let now = self.clock.monotonic();
        if now < self.last_tick + TICK {
            return;
        }
        self.last_tick = now;
        self.backoff.forget(now);
        self.report_health().await;
        self.follow_connection();
        self.hint();
        let idle = self.idle_since.is_some_and(|since| now >= since + TICK);
        self.prove_tails(if idle { PATIENCE_IDLE } else { PATIENCE_BUSY });
        if now >= self.topic_checked_at + TOPIC_INTERVAL {
            self.topic_checked_at = now;
            self.check_topic().await;
        }
    }

    /// Stops everything when the topic is no longer what the database applies.
    async fn check_topic(&mut self) {
        let Some(known) = self.topic.clone() else {
            return;
        };
        // A broker that is away is told of elsewhere.
        let Ok(found) = self.log.topic().await else {
            return;
        };
        let Ok(told) = self.told_of_all(&found).await else {
            return;
        };
        if let Some(stop) = misfit(&known, &found).or_else(|| self.shared_group(&told)) {
            let active: Vec<_> = self.assignment.positions().map(|(p, _)| p).collect();
            for partition in active.into_iter().chain(self.assignment.elsewhere()) {
                self.stop(partition, stop.clone());
            }
        }
        self.assignment.recheck_stopped();
        self.look_elsewhere(&found, &told).await;
        // What nobody reads has no statistics: how far it is behind is asked for.
        for partition in self.assignment.stopped() {
            if let Err(failure) = self.log.bounds(partition).await {
                debug!(partition, error = %failure, "asking for the bounds of a stopped partition");
                // The others wait as long, and the lane with them.
                break;
            }
        }
    }

    /// Partitions that another database served may be this one's by now. A lane that is given nothing else has
    /// nothing to hint, and of two databases in one group each may be given the other's: so it tells of one that is
    /// not its own, where the group was told of none.
    async fn look_elsewhere(&mut self, topic: &Topic, told: &[Hint]) {
        let elsewhere = self.assignment.elsewhere();
        if elsewhere.is_empty() {
            return;
        }
        let first = self.served.of(topic.partitions).next();
        let mut starts = Vec::new();
        if let Some(partition) = first.filter(|_| told.is_empty())
            && let Ok(bounds) = self.log.bounds(partition).await
        {
            starts.push((partition, bounds.start));
        }
        // A database that is away is told of in other places.
        let Ok(attached) = self.store.attach(topic, &starts).await else {
            return;
        };
        self.served = attached.served;
        for partition in elsewhere.into_iter().filter(|p| self.served.has(*p)) {
            self.assignment.recheck_elsewhere(partition);
        }
        let hints = attached.positions.iter().map(|position| Hint {
            partition: position.partition,
            offset: position.position,
            database: attached.database,
            incarnation: position.incarnation,
        });
        self.log.hint(&hints.collect::<Vec<_>>());
    }

    /// Tells the broker how far the database is.
    pub(super) fn hint(&mut self) {
        if let Some(database) = self.database {
            self.log.hint(&self.assignment.hints(database));
        }
    }

    /// Asks for a seek where the log seems to end in a hole.
    fn prove_tails(&mut self, patience: u32) {
        let ends: Vec<_> = self
            .assignment
            .positions()
            .filter_map(|(partition, _)| Some((partition, self.log.last_bounds(partition)?.end)))
            .collect();
        for (partition, end) in ends {
            self.assignment.prove_tail(partition, end, patience);
        }
    }

    /// The board (readiness, metrics) and the table that analysts see.
    pub(super) async fn report_health(&mut self) {
        let now = self.clock.wall_micros();
        let mut statuses: Vec<_> = self
            .assignment
            .partitions()
            .filter(|(_, state)| **state != State::Elsewhere)
            .map(|(partition, state)| {
                let bounds = self.log.last_bounds(partition);
                self.board.status(partition, state, bounds, now)
            })
            .collect();
        for status in &mut statuses {
            self.tell_trouble(status);
        }
        self.look_for_stalls(&mut statuses);
        for status in &statuses {
            observe::partition(status);
        }
        let written = self.store.publish_status(&statuses).await;
        if written.is_err() && !planted::has(Bug::TrustConnection) {
            // What comes after this connection may be another database, or an older one.
            let active: Vec<_> = self.assignment.positions().map(|(p, _)| p).collect();
            self.recheck(&active);
        }
        let problems = [
            self.log.problem().map(|problem| problem.to_string()),
            written
                .err()
                .map(|problem| format!("the database: {problem}")),
        ];
        self.note_problems(problems.into_iter().flatten().collect());
        self.board.publish(statuses, &self.problems);
    }

    /// Why a partition is not read, until there is nothing to apply or something was applied.
    fn tell_trouble(&mut self, status: &mut PartitionStatus) {
        match status.state {
            "active" if status.lag_records() == Some(0) => {
                self.troubles.remove(&status.partition);
            }
            "active" | "stopped" => {}
            _ => {
                let trouble = self.troubles.get(&status.partition);
                status.detail = trouble.cloned().unwrap_or_default();
            }
        }
    }

    /// Marks the partitions that do not get on, and begins them anew.
    fn look_for_stalls(&mut self, statuses: &mut [PartitionStatus]) {
        let now = self.clock.monotonic();
        let mut restarts = Vec::new();
        for status in statuses
            .iter_mut()
            .filter(|status| status.state != "stopped")
        {
            let partition = status.partition;
            let (watch, stall_after) = (&mut self.watch, self.guards.stall_after);
            let pace = match (status.position, status.lag_records()) {
                (Some(position), Some(lag)) => {
                    watch.look(partition, position, lag > 0, now, stall_after)
                }
                _ => watch.look_unread(partition, now, stall_after),
            };
            let (Pace::Stalled(standing) | Pace::Restart(standing)) = pace else {
                continue;
            };
            let seconds = standing.as_secs();
            status.state = "stalled";
            let trouble = self.troubles.get(&partition);
            let trouble = trouble.map_or("reading it anew", String::as_str);
            status.detail = format!("nothing was applied for {seconds} s: {trouble}");
            if let Pace::Restart(_) = pace {
                warn!(
                    partition,
                    detail = status.detail,
                    "the partition stands still"
                );
                observe::restarted();
                restarts.push(partition);
            }
        }
        if !restarts.is_empty() {
            self.recheck(&restarts);
        }
    }

    /// Says once what has begun to keep this lane from its work, and once that it is over.
    fn note_problems(&mut self, problems: Vec<String>) {
        for problem in problems
            .iter()
            .filter(|problem| !self.problems.contains(problem))
        {
            warn!(problem, "waiting");
        }
        if problems.is_empty() && !self.problems.is_empty() {
            info!("going on: Kafka and the database are there");
        }
        self.problems = problems;
    }
}
