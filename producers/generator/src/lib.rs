//! Seeded synthetic load: uniform and Zipf accounts, open loop or flat out.
//!
//! | module | holds |
//! |---|---|
//! | [`workload`] | what to generate, and what of it is refused |
//! | [`transactions`] | the pure part: the same workload gives the same transactions |
//! | [`accounts`] | which account: how often, under which name |
//! | [`mod@run`] | publishing a workload, at a rate or flat out |

pub mod accounts;
pub mod run;
pub mod transactions;
pub mod workload;

pub use run::{Error, Progress, Summary, run};
pub use transactions::Transactions;
pub use workload::{IdVersion, Invalid, Skew, Workload};
