//! The ledger consumer group: it validates, persists and projects transactions, exactly once.
//!
//! | module | holds |
//! |---|---|
//! | [`kafka`] | the log: assignment, polling |
//! | [`pipeline`] | the phases of a batch: pure but for the calls to log and store |
//! | [`parking`] | what operators do with parked records |
//! | [`store`] | all SQL, and the migrations |
//! | [`record`], [`chain`] | what a batch is made of; the hash chain |
//! | [`board`], [`observe`] | how the partitions are; what is counted |
//! | [`group`] | the lanes of one process |
//! | [`verify`] | the proof that nothing was lost, counted twice or changed |

pub mod board;
pub mod chain;
pub mod group;
pub mod kafka;
pub mod observe;
pub mod parking;
pub mod pipeline;
pub mod record;
pub mod store;
pub mod verify;
