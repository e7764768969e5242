//! Rows that are no transaction: why, and the file that lists them all.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};

use millrace_rules::Reason;
use millrace_schemas::Invalid;

/// The longest detail: what a person can read.
const DETAIL_CHARS_MAX: usize = 300;

/// The columns of the file of refused rows.
const HEADER: &str = "line,reason,detail,raw";

/// Why a row was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Not as many columns as the header, or as the mapping names.
    Columns,
    /// A quoted text is not closed, or goes on after its closing quote.
    Quote,
    /// Not UTF-8.
    Encoding,
    /// Another line end than the mapping says, or none where one is required.
    LineEnd,
    /// Longer than any row that can be a transaction.
    TooLong,
    /// Not a transaction in JSON.
    Undecodable,
    /// No `[[direction]]` of the mapping fits.
    NoDirection,
    /// A lookup of the mapping does not list the value and has no `otherwise`.
    NotListed,
    /// A field of the transaction is invalid; the same reasons as in the ledger.
    Invalid(Reason),
    /// A good row whose delivery was not acknowledged.
    NotDelivered,
}

impl Why {
    /// The stable name in the file of refused rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Quote => "quote",
            Self::Encoding => "encoding",
            Self::LineEnd => "line_end",
            Self::TooLong => "too_long",
            Self::Undecodable => "undecodable",
            Self::NoDirection => "no_direction",
            Self::NotListed => "not_listed",
            Self::Invalid(reason) => reason.as_str(),
            Self::NotDelivered => "not_delivered",
        }
    }
}

/// Why and in detail, before the row's line is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: Why,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(why: Why, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        // A refused value may be as large as a row: its beginning is enough to recognise it.
        if let Some((end, _)) = detail.char_indices().nth(DETAIL_CHARS_MAX) {
            detail.truncate(end);
        }
        Self { why, detail }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::new(Why::Invalid(invalid.reason), invalid.detail)
    }
}

/// A refused row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The line where the row begins, from 1; in Avro files the number of the record.
    pub line: u64,
    /// Why.
    pub why: Why,
    /// The offending value and what would be right.
    pub detail: String,
}

/// The file of refused rows: `line,reason,detail,raw`. Created with the first of them; without any, one
/// that an earlier import has left is removed.
#[derive(Debug)]
pub(crate) struct RefusedFile {
    path: PathBuf,
    writer: Option<csv::Writer<File>>,
}

impl RefusedFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, writer: None }
    }

    pub(crate) fn write(&mut self, row: &RefusedRow, raw: &str) -> io::Result<()> {
        let line = row.line.to_string();
        let record = [&line, row.why.as_str(), &row.detail, raw];
        self.writer()?.write_record(record)?;
        Ok(())
    }

    /// The path, if this import has written it. `is_clean`: the whole input was published, so that what
    /// an earlier import has left is true no more.
    pub(crate) fn finish(mut self, is_clean: bool) -> io::Result<Option<PathBuf>> {
        match &mut self.writer {
            None if is_clean => self.remove_left().map(|()| None),
            None => Ok(None),
            Some(writer) => writer.flush().map(|()| Some(self.path)),
        }
    }

    /// Never a file of another kind: its first line must be ours.
    fn remove_left(&self) -> io::Result<()> {
        let is_file = self.path.symlink_metadata().is_ok_and(|m| m.is_file());
        if !is_file {
            return Ok(());
        }
        let mut header = String::new();
        let file = File::open(&self.path)?.take(HEADER.len() as u64);
        let is_ours = io::BufReader::new(file).read_line(&mut header).is_ok() && header == HEADER;
        if is_ours {
            std::fs::remove_file(&self.path)?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn writer(&mut self) -> io::Result<&mut csv::Writer<File>> {
        if self.writer.is_none() {
            let mut writer = csv::Writer::from_writer(File::create(&self.path)?);
            writer.write_record(HEADER.split(','))?;
            self.writer = Some(writer);
        }
        Ok(self.writer.as_mut().expect("it was just created"))
    }
}
