//! What librdkafka's callbacks leave for the lane: they run inside its `poll` and only take notes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Statistics, TopicPartitionList};
use tracing::{debug, error, warn};

use crate::kafka::log::{Bounds, Event};
use crate::record::Intake;

/// A partition of which librdkafka has said that its end is reached. At which offset that was it tells in
/// its statistics only, and those of that very moment may be of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// No statistics have come since.
    Now,
    /// Some have.
    Told,
    /// These are of after: the end was here. So many messages were in the queue then, and are handed out
    /// first: statistics overtake them.
    At { end: i64, queued: i64 },
}

impl Ended {
    fn next(self, eof_offset: i64, queued: i64) -> Self {
        match self {
            Self::Now => Self::Told,
            Self::Told if eof_offset >= 0 => Self::At {
                end: eof_offset,
                queued,
            },
            other => other,
        }
    }
}

/// What librdkafka's callbacks leave for the lane.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    pub(super) events: Mutex<VecDeque<Event>>,
    pub(super) bounds: Mutex<HashMap<i32, Bounds>>,
    /// Partitions whose end was reached since they were begun, until it is known at which offset.
    pub(super) ended: Mutex<HashMap<i32, Ended>>,
    /// Whether the offset of an end is known and not yet handed out: asked for each record.
    pub(super) ending: AtomicBool,
    /// Whether the last statistics showed a broker that is connected.
    pub(super) broker_up: AtomicBool,
    /// For how many seconds this member has been joining the group, or waiting for a rebalance.
    pub(super) outside_s: AtomicU32,
    /// Whether the last thing said of the topic was that it is not there.
    pub(super) topic_missing: AtomicBool,
    /// What Kafka does not permit, until it works again.
    pub(super) refusal: Mutex<Option<String>>,
    /// Whether there is a refusal: asked for each record.
    pub(super) troubled: AtomicBool,
    /// Offsets that were hinted, until the statistics show them as committed: rust-rdkafka never calls back
    /// for a commit of its own thread (librdkafka does so only where a callback, not an event, is asked for).
    pub(super) hinting: Mutex<HashMap<i32, i64>>,
    /// The last of the errors that pass by themselves: why no broker is there.
    pub(super) last_error: Mutex<String>,
}

impl Mailbox {
    pub(super) fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bounds(&self) -> MutexGuard<'_, HashMap<i32, Bounds>> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, HashMap<i32, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hinting(&self) -> MutexGuard<'_, HashMap<i32, i64>> {
        self.hinting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was handed out, or there is none any more.
    pub(super) fn handed_out(&self, is_empty: bool) {
        for ended in self.ended().values_mut() {
            if let Ended::At { queued, .. } = ended {
                *queued = if is_empty { 0 } else { *queued - 1 };
            }
        }
    }

    /// Takes the ends before which everything is handed out.
    pub(super) fn take_ends(&self, intake: &mut Intake) {
        let mut ended = self.ended();
        ended.retain(|partition, ended| match ended {
            Ended::At { end, queued: ..=0 } => {
                intake.push_end(*partition, *end);
                false
            }
            _ => true,
        });
        let is_ending = ended
            .values()
            .any(|ended| matches!(ended, Ended::At { .. }));
        self.ending.store(is_ending, Ordering::Relaxed);
    }

    pub(super) fn last_error(&self) -> MutexGuard<'_, String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kafka answers as it should.
    pub(super) fn works(&self) {
        self.topic_missing.store(false, Ordering::Relaxed);
        self.troubled.store(false, Ordering::Relaxed);
        *self.refusal() = None;
    }

    /// Most errors of the client pass and are told of by what they keep from happening. What somebody
    /// has to permit is not seen otherwise.
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka");
        let is_refusal = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::InconsistentGroupProtocol
            )
        );
        let text = format!("{error} {reason}").trim_end().to_owned();
        if is_refusal {
            *self.refusal() = Some(format!("Kafka refuses: {text}"));
            self.troubled.store(true, Ordering::Relaxed);
        } else {
            *self.last_error() = text;
        }
    }
}

pub(super) struct Context {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) topic: String,
}

impl ClientContext for Context {
    /// What is an error to librdkafka is seldom one here: what keeps the lane from its work is told
    /// with its readiness, once.
    fn error(&self, error: KafkaError, reason: &str) {
        if !matches!(error, KafkaError::PartitionEOF(_)) {
            self.mailbox.note(&error, reason);
        }
    }

    /// librdkafka's own lines repeat that, once per try and broker, and warn of hints that a rebalance
    /// has overtaken.
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(fac, "librdkafka: {message}");
            }
            _ => debug!(fac, "librdkafka: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics
            .brokers
            .values()
            .any(|b| b.nodeid >= 0 && b.state == "UP");
        self.mailbox.broker_up.store(up, Ordering::Relaxed);
        // Statistics come each second.
        if statistics
            .cgrp
            .is_none_or(|group| group.join_state == "steady")
        {
            self.mailbox.outside_s.store(0, Ordering::Relaxed);
        } else {
            self.mailbox.outside_s.fetch_add(1, Ordering::Relaxed);
        }
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        for (partition, ended) in &mut *self.mailbox.ended() {
            if let Some(seen) = topic.partitions.get(partition) {
                *ended = ended.next(seen.eof_offset, seen.fetchq_cnt);
                if matches!(ended, Ended::At { .. }) {
                    self.mailbox.ending.store(true, Ordering::Relaxed);
                }
            }
        }
        self.mailbox.hinting().retain(|partition, offset| {
            let seen = topic.partitions.get(partition);
            seen.is_some_and(|seen| seen.committed_offset != *offset)
        });
        let mut bounds = self.mailbox.bounds();
        for (partition, seen) in &topic.partitions {
            if *partition >= 0 && seen.ls_offset >= 0 && seen.lo_offset >= 0 {
                let start = seen.lo_offset;
                let end = seen.ls_offset;
                let known = bounds.entry(*partition).or_insert(Bounds { start, end });
                // Statistics may be older than an answer of the broker: only that goes back.
                known.start = known.start.max(start);
                known.end = known.end.max(end);
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<_> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        let event = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                warn!(%error, "cannot complete an assignment");
            }
            Event::Assigned(partitions)
        } else {
            if let Err(error) = give_back(consumer, list) {
                warn!(%error, "cannot give partitions back");
            }
            Event::Revoked(partitions)
        };
        self.mailbox.events().push_back(event);
    }
}

/// Unassigns those of the partitions that librdkafka has: it takes nothing of a list with others.
pub(super) fn give_back(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    let assigned = consumer.assignment()?;
    let mut held = TopicPartitionList::new();
    for element in list.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        if assigned.find_partition(topic, partition).is_some() {
            held.add_partition(topic, partition);
        }
    }
    consumer.incremental_unassign(&held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_believed_from_statistics_of_after_it() {
        let now = Ended::Now.next(9, 0);
        assert_eq!(now, Ended::Told, "they may be of before");
        assert_eq!(now.next(-1001, 0), Ended::Told);
        let at = Ended::At { end: 9, queued: 1 };
        assert_eq!(now.next(9, 1), at);
        assert_eq!(at.next(12, 0), at);
        let mailbox = Mailbox::default();
        mailbox.ended().insert(3, at);
        let mut intake = Intake::default();
        mailbox.take_ends(&mut intake);
        assert_eq!(intake.take_ends(), [], "a message comes first");
        assert!(mailbox.ending.load(Ordering::Relaxed));
        mailbox.handed_out(false);
        mailbox.take_ends(&mut intake);
        assert_eq!(intake.take_ends(), [(3, 9)]);
        assert!(!mailbox.ending.load(Ordering::Relaxed));
    }
}
