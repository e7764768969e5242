//! The binary against a real Kafka and a real Postgres, as separate processes.
//!
//! `infra/test.sh` starts the servers and says where they are. Every test has a topic, a consumer group
//! and a database of its own; those that take servers down start their own. The oracle is always the
//! same: the topic, read independently, says what the ledger must hold.
//!
//! | module | holds |
//! |---|---|
//! | [`place`] | a topic, a group and a database for one test |
//! | [`process`] | `millrace` as a process: tools that end, replicas that serve |
//! | [`http`] | the HTTP services as their clients see them |
//! | [`servers`] | where the servers are; servers that a test may take down |
//! | [`records`] | transactions and raw records to publish |
//! | [`rewrite`] | a copy of a database, changed as its superuser can |
//! | [`log`] | the topic, read without Millrace's consumer |
//! | [`oracle`] | what the database must hold |
//! | the others | the tests, by what they show |
#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up fails the test"
)]

mod http;
mod log;
mod oracle;
mod place;
mod process;
mod records;
mod rewrite;
mod servers;

mod across;
mod berka;
mod chaos;
mod checkpoints;
mod command_line;
mod connections;
mod console;
mod crashes;
mod database_refused;
mod dev;
mod drains;
mod frozen;
mod gateway;
mod ids;
mod independent_client;
mod malformed;
mod openapi;
mod outages;
mod parking;
mod plans;
mod poison;
mod policies;
mod positions;
mod readme;
mod rewritten;
mod served;
mod split;
mod stops;
mod tampering;
mod threads;
