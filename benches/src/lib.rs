//! What the benchmarks share.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | one keep-alive HTTP connection, cheap in CPU |
//! | [`conditions`] | what a run's figures depend on beside its parameters |
//! | [`latency`] | latencies as they are kept |
//! | [`machine`] | what the benchmarks run on |
//! | [`meter`] | all costs between two moments |
//! | [`processes`] | CPU and memory of processes, from `/proc` |
//! | [`programs`] | running `millrace` as a tool and as a service |
//! | [`results`] | files of runs, and what is told of them |
//! | [`spread`] | the middle and the ends of several runs |
//! | [`plot`] | charts as SVG |
//! | [`saved`] | what earlier runs have kept, shown again |
//! | [`scratch`] | a database and a topic that live as long as one run |
//! | [`services`] | the services of one run, and where they listen |
//! | [`signals`] | what asks a benchmark to end |

pub mod client;
pub mod conditions;
pub mod latency;
pub mod machine;
pub mod meter;
pub mod plot;
pub mod processes;
pub mod programs;
pub mod results;
pub mod saved;
pub mod scratch;
pub mod services;
pub mod signals;
pub mod spread;
