//! Real faults: a real Kafka, a real Postgres and replicas of the ledger under load; processes are killed
//! and frozen, connections slowed and cut, and afterwards an oracle judges from what Kafka acknowledged.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | what to run, and for how long |
//! | [`run`](mod@run) | one run from its start to its verdict |
//! | [`recovery`] | the few faults with a target, many times each |
//! | [`faults`] | the kinds of faults, and their order drawn from a seed |
//! | [`strike`], `struck` | making each of them, and ending it |
//! | [`cluster`], [`replica`], [`servers`], [`proxy`] | what is struck |
//! | [`positions`] | where every partition is, ten and more times a second, and so recovery times |
//! | [`transactions`], [`load`], [`journal`] | what is published, and what of it was acknowledged |
//! | [`oracle`] | whether the database holds exactly that |
//! | [`record`] | what is kept and told of a run |

pub mod cluster;
pub mod faults;
pub mod journal;
pub mod load;
pub mod options;
pub mod oracle;
pub mod positions;
pub mod proxy;
pub mod record;
pub mod recovery;
pub mod replica;
pub mod run;
pub mod servers;
pub mod strike;
mod struck;
pub mod transactions;
