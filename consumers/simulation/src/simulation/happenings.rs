//! What happens in the world beside the actors' own steps.

use rand::RngExt as _;

use super::{DRAIN_MAX, SESSION_TIMEOUT};
use crate::fault::Fault;
use crate::trace::{NONE, Who};
use crate::world::{MILLI, SECOND, State, What};

impl State {
    pub(super) fn go_away(&mut self) {
        let until = self.now + self.random.random_range(50 * MILLI..12 * SECOND);
        self.database_away_until = until;
    }

    /// Whether the actor goes on now: it waits for this turn and does not stand still.
    pub(super) fn grant(&mut self, actor: usize, ticket: u64) -> bool {
        let now = self.now;
        let waiter = &mut self.actors[actor];
        if waiter.waiting != Some(ticket) {
            return false;
        }
        if waiter.frozen_until > now {
            let after = waiter.frozen_until - now;
            self.schedule(after, What::Wake { actor, ticket });
            return false;
        }
        waiter.waiting = None;
        self.counts.steps += 1;
        true
    }

    /// A process has ended by itself: it leaves the group and begins again.
    pub(super) fn left(&mut self, actor: usize, lanes: usize) {
        self.note(Who::Actor(actor), "has ended", &[]);
        if let Some(member) = self.actors[actor].member.take() {
            let Self { broker, random, .. } = self;
            broker.forget(member, random);
        }
        if actor < lanes {
            let after = self.random.random_range(0..3 * SECOND);
            self.schedule(after, What::Start { actor });
        }
    }

    pub(super) fn append(&mut self) {
        let after = self.random.random_range(5 * MILLI..500 * MILLI);
        self.schedule(after, What::Append);
        if self.now < self.broker.away_until || self.workload.is_done() {
            return;
        }
        let now_ms = self.wall_offset / 1_000 + i64::try_from(self.now / 1_000).unwrap_or(0);
        let Self {
            workload,
            random,
            broker,
            counts,
            ..
        } = self;
        for (partition, sent) in workload.next(random, now_ms) {
            counts.records += u64::from(sent.is_some());
            broker.partitions[crate::broker::place(partition)].append(sent);
        }
    }

    /// The group gives up a member of which it hears nothing.
    pub(super) fn expire(&mut self, member: u64) {
        let now = self.now;
        let actor = self
            .actors
            .iter()
            .find(|actor| actor.member == Some(member));
        let Self { broker, random, .. } = self;
        match actor {
            None => broker.forget(member, random),
            Some(actor) if actor.frozen_until > now => broker.lose(member, random),
            Some(_) => {}
        }
    }

    /// The faults stop.
    pub(super) fn calm(&mut self) {
        self.chaos = false;
        self.calm_at = Some(self.now);
        self.broker.away_until = 0;
        self.broker.wrong_count_until = 0;
        self.database_away_until = 0;
        self.note(Who::World, "calm", &[]);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.workload.is_done()
            && self.oracle.left(&self.broker).is_empty()
            && self.oracle.waiting().is_empty()
    }

    pub(super) fn fail_to_drain(&mut self) {
        let left = self.oracle.left(&self.broker);
        let parked = self.oracle.waiting();
        let stopped = &self.stopped;
        self.fail(format!(
            "not everything is applied {} s after the last fault: (partition, position, end) {left:?}, \
             stopped: {stopped:?}, parked in: {parked:?}, {:?}",
            DRAIN_MAX / SECOND,
            self.broker
        ));
    }

    /// A fault of the log, the group or the clock. Gives whether it could strike.
    pub(super) fn strike_world(&mut self, fault: Fault, lanes: usize) -> bool {
        let now = self.now;
        let actor = self.random.random_range(0..lanes);
        let place = self.random.random_range(0..self.broker.partitions.len());
        let Self { broker, random, .. } = self;
        match fault {
            Fault::Freeze => return self.freeze(actor),
            Fault::GracefulStop => self.actors[actor].stop = true,
            Fault::Rebalance => broker.rebalance(random),
            Fault::MemberLost => {
                let live = broker.live();
                if live.is_empty() {
                    return false;
                }
                broker.lose(live[random.random_range(0..live.len())], random);
            }
            Fault::RepeatedAssignment => broker.repeat_assignment(random),
            Fault::BrokerAway => {
                broker.away_until = now + random.random_range(50 * MILLI..12 * SECOND);
            }
            Fault::Retention => {
                let log = &mut broker.partitions[place];
                let start = random.random_range(log.start..=log.end);
                log.retain_from(start);
            }
            Fault::LaggingLeader => {
                let log = &mut broker.partitions[place];
                let end = (log.end - random.random_range(1..20)).max(log.start);
                log.lag = Some((now + random.random_range(MILLI..10 * SECOND), end));
            }
            Fault::Truncation => {
                let log = &mut broker.partitions[place];
                let end = (log.end - random.random_range(1..20)).max(log.start);
                log.truncate(end);
                self.workload.send_more(random.random_range(5..60));
            }
            Fault::Recreation => {
                broker.partitions[place].recreate();
                self.workload.send_more(random.random_range(5..60));
            }
            Fault::ClockJump => {
                let hours = random.random_range(-30..30);
                self.wall_offset += hours * 3_600_000_000;
            }
            Fault::PartitionCount => {
                // A database is tied to the count that it sees first.
                if !self.oracle.has_begun() {
                    return false;
                }
                broker.wrong_count_until = now + random.random_range(SECOND..15 * SECOND);
                self.is_excused = true;
            }
            _ => return false,
        }
        true
    }

    pub(super) fn freeze(&mut self, actor: usize) -> bool {
        let until = self.now + self.random.random_range(20 * MILLI..25 * SECOND);
        let frozen = &mut self.actors[actor];
        let Some(member) = frozen.member else {
            return false;
        };
        frozen.frozen_until = frozen.frozen_until.max(until);
        self.schedule(SESSION_TIMEOUT, What::Expire { member });
        self.note(Who::Actor(actor), "stands still", &[NONE]);
        true
    }
}
