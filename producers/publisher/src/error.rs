//! What went wrong, named for what the caller can do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a publisher could not be made, or a record has no receipt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The settings are wrong: correct them.
    #[error("{0}")]
    Settings(String),
    /// The topic must be created first.
    #[error("topic {topic:?} does not exist on {brokers}: create it with `millrace topics create`")]
    TopicMissing {
        /// The topic that was asked for.
        topic: String,
        /// The brokers that were asked.
        brokers: String,
    },
    /// No broker answered: connect again later.
    #[error("no answer from kafka at {brokers}")]
    Unreachable {
        /// The brokers that were asked.
        brokers: String,
        /// What the client says.
        source: KafkaError,
    },
    /// The record was not acknowledged, though it may be in the log: publish it again later. That is
    /// safe, because the same transaction twice is posted once.
    #[error("the record was not acknowledged; publishing it again is safe")]
    Retry(#[source] KafkaError),
    /// Kafka will never take this record: fix it. Other records are not affected.
    #[error("kafka does not take this record")]
    FixRecord(#[source] KafkaError),
    /// No record can be published until somebody acts (permissions, a deleted topic) or, after a fatal
    /// error of the idempotent producer, until a new publisher is connected. Records without a receipt
    /// may be in the log.
    #[error("no record can be published")]
    Stop(#[source] KafkaError),
}

impl Error {
    /// librdkafka did not take the record into its queue.
    pub(crate) fn at_hand_in(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::UnknownPartition | Code::InvalidArgument) => {
                Self::FixRecord(error)
            }
            _ => Self::Stop(error),
        }
    }

    /// The delivery report says that the record was not acknowledged.
    pub(crate) fn at_delivery(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            // This is about the whole batch, and librdkafka splits none: its small records are
            // innocent, and their neighbour would do the same to others again.
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => Self::Settings(
                "the topic takes smaller batches than this producer makes: set property \
                 message.max.bytes to the topic's max.message.bytes"
                    .into(),
            ),
            Some(Code::InvalidRecord) => Self::FixRecord(error),
            Some(
                Code::Fatal
                | Code::OutOfOrderSequenceNumber
                | Code::UnknownProducerId
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TopicAuthorizationFailed
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition,
            ) => Self::Stop(error),
            _ => Self::Retry(error),
        }
    }
}
