//! HTTP ingest: transactions in, receipts out.
//!
//! A request is answered with 202 only after every record of it has its receipt from all in-sync
//! replicas. Whatever else is answered, the same request may be sent again: a transaction that comes
//! twice is posted once.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound of the gateway, with its reason |
//! | [`gateway`] | starting, readiness, draining; what all requests share |
//! | [`kafka`] | the connection that is made again, and whether Kafka is away |
//! | [`breaker`] | answers at once while Kafka is away, with one probe a second |
//! | [`routes`] | the router and the ways through a request: one object, an array, NDJSON |
//! | [`request`] | what the headers say: media type, encoding, `Idempotency-Key` |
//! | [`upload`] | the body as it arrives: size, time, memory |
//! | [`lines`] | a stream of chunks to lines |
//! | [`item`] | JSON text to a transaction, or to the code and field that are wrong |
//! | [`collector`] | the results of one request as the receipts come |
//! | [`metering`] | the handles that count requests and items |
//! | [`answer`] | results and problems as HTTP answers |
//! | [`openapi`] | the description of it all |

mod answer;
mod breaker;
mod collector;
pub mod gateway;
mod item;
mod kafka;
pub mod limits;
mod lines;
mod metering;
pub mod openapi;
mod request;
pub mod routes;
mod upload;

pub use gateway::Gateway;
pub use limits::{Limits, Options};
pub use openapi::openapi;
pub use routes::router;

#[cfg(test)]
mod tests;
