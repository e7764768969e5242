//! What an import did.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::refused::RefusedRow;

/// How many refused rows the summary names; the file has them all.
pub const REFUSED_SHOWN_MAX: usize = 1_000;

/// What an import did. Its text is for people, on several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Rows read: the sum of the next three.
    pub rows: u64,
    /// Rows that Kafka has (acks=all); in a dry run, rows that are good.
    pub acknowledged: u64,
    /// Rows that are no transaction.
    pub refused: u64,
    /// Good rows that were handed in and not acknowledged. They may be in the topic all the same:
    /// importing the file again is safe.
    pub failed: u64,
    /// The first of the refused and failed rows.
    pub first_refused: Vec<RefusedRow>,
    /// The file that lists them all, if there are any.
    pub refused_file: Option<PathBuf>,
    /// How it ended.
    pub end: End,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// What rows are counted in: `line` or `record`.
    pub unit: &'static str,
    /// From the first row to the last answer.
    pub elapsed: Duration,
}

/// How an import ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// At the end of the input.
    Complete,
    /// It was told to stop; rows are left.
    Stopped,
    /// It could not go on, for this reason; rows are left or have no answer.
    Broken(String),
}

/// The exit code of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every row is acknowledged.
    Success = 0,
    /// Rows are missing that importing the file again can bring in.
    Incomplete = 1,
    /// The input was read to its end and some of its rows were refused; all others are acknowledged.
    RowsRefused = 2,
}

impl Exit {
    /// The code.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl Summary {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.end != End::Complete || self.failed > 0 {
            Exit::Incomplete
        } else if self.refused > 0 {
            Exit::RowsRefused
        } else {
            Exit::Success
        }
    }

    /// Rows per second.
    pub fn rows_per_second(&self) -> u64 {
        rows_per_second(self.rows, self.elapsed)
    }

    fn write_refused(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.first_refused {
            let (unit, line, why) = (self.unit, row.line, row.why.as_str());
            writeln!(f, "  {unit} {line}: {why}: {}", row.detail)?;
        }
        let more = self.refused + self.failed - self.first_refused.len() as u64;
        if more > 0 {
            writeln!(f, "  and {more} more")?;
        }
        match &self.refused_file {
            Some(path) => writeln!(f, "all of them with their rows: {}", path.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.dry_run {
            ", dry run: nothing was published"
        } else {
            ""
        };
        let (seconds, rate) = (self.elapsed.as_secs_f64(), self.rows_per_second());
        writeln!(
            f,
            "{} rows in {seconds:.1} s ({rate} rows/s){mode}",
            self.rows
        )?;
        let good = if self.dry_run { "good" } else { "acknowledged" };
        writeln!(f, "  {:<13}{}", good, self.acknowledged)?;
        writeln!(f, "  {:<13}{}", "refused", self.refused)?;
        writeln!(f, "  {:<13}{}", "failed", self.failed)?;
        self.write_refused(f)?;
        match &self.end {
            End::Complete => Ok(()),
            End::Stopped => writeln!(f, "stopped before the end of the input"),
            End::Broken(why) => writeln!(f, "not read to the end: {why}"),
        }
    }
}

/// Whole rows per second; 0 when no time has passed.
pub(crate) fn rows_per_second(rows: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(rows) * 1_000_000 / elapsed.as_micros().max(1);
    if elapsed.is_zero() {
        0
    } else {
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}
