//! The pure domain of Millrace: validated types, reasons and the decision.
//!
//! Nothing here does I/O, reads a clock, draws a random number or touches a float: the same state
//! and the same records give the same verdicts on every machine.
//!
//! | module | holds |
//! |---|---|
//! | [`account`] | account ids, the outside world, account status |
//! | [`amount`] | amounts in minor units |
//! | [`currency`] | ISO 4217 currencies and their exponents |
//! | [`reason`] | every verdict and reason, with stable codes and the order of precedence |
//! | [`decide`] | from (state, records) to verdicts |
#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

pub mod account;
pub mod amount;
pub mod currency;
pub mod decide;
pub mod reason;

pub use account::{AccountId, Status};
pub use amount::Amount;
pub use currency::Currency;
pub use decide::{Book, Candidate, Content, Decisions, Funds, Limit, Transfer, decide};
pub use reason::{ParkReason, Reason, Verdict};
