//! What `millrace dev` runs beside the services: private servers that are thrown away after it.
//!
//! | module | holds |
//! |---|---|
//! | [`postgres`] | a Postgres of its own |

pub mod postgres;
