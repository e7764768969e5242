//! What both HTTP services share.
//!
//! | module | holds |
//! |---|---|
//! | [`problem`] | RFC 9457 problem documents with stable codes |
//! | [`rest`] | what a handler has left of a body |
//! | [`server`] | the accept loop: bounded connections, header timeout, graceful drain |

pub mod problem;
mod rest;
pub mod server;

pub use problem::Problem;
pub use server::{Limits, serve, with_fallbacks};
