//! Files (CSV, NDJSON, Avro) to the topic, with progress.
//!
//! [`prepare`] opens the file, reads the mapping and holds it against the header: whatever can be
//! wrong before the first row is an [`Error`] there. [`Import::run`] then reads on a thread of its own
//! and publishes; what becomes of the rows is the [`Summary`].
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | what to import and how |
//! | `source` | bytes to rows: decompression, lines, CSV, NDJSON, Avro container files |
//! | `mapping` | a CSV row and the mapping file to a transaction |
//! | [`refused`] | rows that are no transaction: reasons, and the file that lists them all |
//! | `prepare` | everything that is checked before the first row |
//! | `import` | reading, publishing, stopping |
//! | `confirm` | every delivery counted, every failure with its line |
//! | `progress` | the bar, or lines in the log |
//! | [`summary`] | counts, refused rows, the exit code |

mod confirm;
mod error;
mod import;
mod mapping;
pub mod options;
mod prepare;
mod progress;
pub mod refused;
mod source;
pub mod summary;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use import::{Destination, Import};
pub use options::{Format, Options, Progress};
pub use prepare::prepare;
pub use summary::{End, Exit, Summary};
