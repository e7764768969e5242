//! The event contract: what a transaction is on the wire, and nothing that does I/O.
//!
//! | module | holds |
//! |---|---|
//! | [`transaction`] | the validated [`Transaction`], its limits, its canonical digest |
//! | [`wire`] | the fields as they were sent, before validation |
//! | [`codec`] | bytes to [`wire::Wire`] and back: Avro single-object encoding and JSON |
//! | [`key`] | the Kafka key and its partition (murmur2) |
//! | [`ids`] | ids derived from rows and idempotency keys (UUIDv5) |

pub mod codec;
pub mod ids;
pub mod key;
pub mod transaction;
pub mod wire;

pub use codec::{ContentType, DecodeError, decode, encode};
pub use key::{Key, partition_of};
pub use transaction::{Invalid, Transaction};
pub use wire::Wire;
