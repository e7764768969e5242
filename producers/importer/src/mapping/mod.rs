//! A row of columns to a transaction, as a mapping file says.
//!
//! | module | holds |
//! |---|---|
//! | [`file`] | the mapping file as it is written |
//! | [`mapper`] | the mapping held against the columns, and applied to rows |
//! | [`template`] | text with columns and lookups in braces |
//! | [`decimal`] | decimal text to minor units |
//! | [`time`] | dates and times in text |

mod decimal;
pub(crate) mod file;
mod mapper;
mod template;
#[cfg(test)]
mod tests;
mod time;

pub(crate) use mapper::{Columns, Mapper, parse};
