//! What `millrace dev` runs beside the services: private servers that are thrown away after it.
//!
//! | module | holds |
//! |---|---|
//! | [`broker`] | librdkafka's in-process broker |
//! | [`postgres`] | a Postgres of its own |

pub mod broker;
pub mod postgres;
