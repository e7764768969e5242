//! The log side: which partitions this lane serves, what it may believe of what it reads.
//!
//! | module | holds |
//! |---|---|
//! | [`log`] | the trait behind which the log lies, real or simulated |
//! | [`assignment`] | the pure state of every assigned partition |
//! | [`consumer`] | Kafka behind the trait |

pub mod assignment;
pub mod consumer;
pub mod log;
