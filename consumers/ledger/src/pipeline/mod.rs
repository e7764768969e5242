//! One database transaction per batch: decode -> lock -> read -> decide -> write -> commit -> report.
//!
//! | phase | where | touches |
//! |---|---|---|
//! | decode | [`decode`] | nothing: bytes to transactions |
//! | lock, commit | [`lane`] | the partitions' locks and positions |
//! | read, decide | [`decide`] | ids, held keys, policies, funds; then `millrace_rules::decide` |
//! | write | [`plan`] and [`slices`] to [`outcome`], the store | the outcome as rows, then the statements |
//! | report | [`lane`], [`sentinel`] | metrics, the board, the hint to the broker; the order of each key |

pub mod decide;
pub mod decode;
pub mod lane;
pub mod memory;
pub mod outcome;
pub mod plan;
pub mod sentinel;
mod slices;
