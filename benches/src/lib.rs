//! What the benchmarks share.
//!
//! | module | holds |
//! |---|---|
//! | [`machine`] | what they run on |
//! | [`results`] | files of runs, and what is told of them |
//! | [`spread`] | the middle and the ends of several runs |
//! | [`plot`] | charts as SVG |

pub mod machine;
pub mod plot;
pub mod results;
pub mod spread;
