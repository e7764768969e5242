//! Read models: tables folded from the ledger, one SQL file each in `models/`.
//!
//! A fold adds the posted transactions of a range of `seq` to the model's table, in slices that belong
//! to one partition each. The model's position (a `seq` per partition) moves in the same database
//! transaction, so a range is folded exactly once, whoever folds it: the lane that posted it
//! ([`fold_inline`]) or a background worker ([`run`]). The lock on the position's row decides who.
//!
//! Folding in the background, catching up after a failure, rebuilding from nothing and adding a model
//! to a running system are the same mechanism with different distances.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | the SQL files and what is read from them |
//! | [`install`] | tables, views and grants in the database |
//! | [`fold`] | one fold: add the range, move the position |
//! | [`inline`] | folding inside the ledger's batch |
//! | [`positions`] | how far each model is; failures |
//! | [`plan`] | which partitions a worker folds next, and when: pure |
//! | [`runner`] | the background workers |
//! | [`status`] | what they say about themselves |
//! | [`verify`] | stored slices against a fold from nothing |
//! | [`telemetry`] | metrics |

pub mod error;
mod fold;
mod inline;
mod install;
pub mod model;
mod plan;
mod positions;
mod runner;
pub mod status;
pub mod telemetry;
mod verify;

pub use error::Error;
pub use inline::{Failed, INLINE_GAP_MAX, Inline, fold_inline, fold_untroubled};
pub use install::install;
pub use model::{Mode, Model, all};
pub use positions::record_failure;
pub use runner::{Options, run};
pub use status::{Database, ModelStatus, Status};
pub use verify::{Difference, Verified, verify};
