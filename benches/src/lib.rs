//! What the benchmarks share.
//!
//! | module | holds |
//! |---|---|
//! | [`machine`] | what they run on |
//! | [`results`] | files of runs, and what is told of them |

pub mod machine;
pub mod results;
