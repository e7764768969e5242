//! The views of schema `reports`, as the API gives them out: one description drives SQL, JSON, CSV and
//! the API's document.
//!
//! | module | holds |
//! |---|---|
//! | [`catalog`] | every report: columns, filters, order |
//! | [`filter`] | checking the value of a filter |
//! | [`query`] | the statement of a page, its cursor |
//! | [`format`] | rows as JSON, NDJSON and CSV |

pub mod catalog;
pub mod filter;
pub mod format;
pub mod query;

pub use catalog::{Column, Filter, Kind, Order, REPORTS, Report};
pub use query::{Page, Row, fetch};
