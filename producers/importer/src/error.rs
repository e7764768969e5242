//! What is wrong before the first row.

use std::io;
use std::path::PathBuf;

/// Why an import cannot begin. Nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options do not fit together: correct the command line.
    #[error("{0}")]
    Usage(String),
    /// The mapping is wrong, or does not fit the file: correct one of them. Names the key and, where
    /// the header is concerned, its line.
    #[error("mapping {path:?}: {problem}")]
    Mapping {
        /// The mapping file.
        path: PathBuf,
        /// The key and what is wrong with it.
        problem: String,
    },
    /// A file cannot be opened or read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The input is not what its format says.
    #[error("{path:?}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        problem: String,
    },
}
