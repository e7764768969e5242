//! The log side: which partitions this lane serves, what it may believe of what it reads.
//!
//! | module | holds |
//! |---|---|
//! | [`log`] | the trait behind which the log lies, real or simulated |
//! | [`assignment`] | the pure state of every assigned partition |
//! | [`cursor`] | the same of one that is read |
//! | [`diagnosis`] | what a lane would say of a partition |
//! | [`stop`] | why a partition does not go on |
//! | [`settings`] | where Kafka is, and what its client is told |
//! | [`consumer`] | Kafka behind the trait |
//! | [`mailbox`] | what librdkafka's callbacks leave for the lane |
//! | [`reader`] | Kafka as a bystander reads it, for proofs |

pub mod assignment;
pub mod consumer;
pub mod cursor;
pub mod diagnosis;
pub mod log;
mod mailbox;
pub mod reader;
pub mod settings;
pub mod stop;
