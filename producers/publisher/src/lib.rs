//! Publishes to Kafka with acks=all, a delivery receipt for every record and backpressure.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | where and how to publish; the properties that nobody may change |
//! | [`publisher`] | connecting, handing in, waiting for what is in flight |
//! | [`backlog`] | holding back for an in-memory broker |
//! | [`delivery`] | a record in flight, its receipt, the delivery reports |
//! | [`error`] | what went wrong, named for what the caller can do |
//! | [`metrics`] | names and help texts of the metrics |

mod backlog;
pub mod delivery;
pub mod error;
mod metrics;
pub mod publisher;
pub mod settings;

pub use backlog::{APPLIED_GROUP, is_in_memory};
pub use delivery::{Delivery, Receipt, Totals};
pub use error::Error;
pub use publisher::{Publisher, RawRecord};
pub use settings::Settings;
