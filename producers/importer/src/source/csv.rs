//! CSV (RFC 4180 with any delimiter): lines to rows of columns.
//!
//! A row is refused rather than guessed at: a quoted text must be closed and its closing quote followed
//! by a delimiter or the line's end. A quoted text may span lines; when such a row turns out to be
//! broken, only its first line is refused and reading goes on with the second, so that a quote left open
//! never takes good rows with it. A row whose quotes are in order and whose columns are too many or too
//! few is refused whole: what stands inside its quotes is no row. The `csv` crate reads on to the next quote instead, wherever that is,
//! which is why rows are split here; a test holds the two against each other.

use std::borrow::Cow;
use std::io::{self, Read};

use memchr::memchr;

use super::lines::{Ahead, Lines, ROW_BYTES_MAX, without_line_end};
use super::{Broken, RAW_SHOWN_BYTES};
use crate::mapping::file::{FileTable, FinalLineEnd, LineEnd};
use crate::refused::{Refusal, Why};

/// How the file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    delimiter: u8,
    quote: Option<u8>,
    line_end: LineEnd,
    final_line_end: FinalLineEnd,
}

/// The rows of a file.
pub(crate) struct Rows<R> {
    lines: Lines<R>,
    splitter: Splitter,
    columns: Option<usize>,
    /// What the last row covers; the window moves when the next one is asked for.
    taken: Taken,
}

/// A row of the right number of columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    text: &'a str,
    fields: &'a [Field],
    quote: char,
}

/// A row, or why it is none.
pub(crate) type Outcome<'a> = Result<Row<'a>, Broken>;

#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    bytes: usize,
    lines: u64,
}

/// Where a value stands in its row, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    start: usize,
    end: usize,
    /// Whether it has quotes written twice.
    doubled: bool,
}

impl Dialect {
    /// Checks the keys of `[file]`; the error names the key.
    pub(crate) fn new(file: &FileTable) -> Result<Self, String> {
        let one_ascii = |key: &str, text: &str| match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') => Ok(*byte),
            _ => Err(format!("file.{key}: {text:?} is not one ASCII character")),
        };
        let delimiter = one_ascii("delimiter", &file.delimiter)?;
        let quote = match file.quote.as_str() {
            "" => None,
            text => Some(one_ascii("quote", text)?),
        };
        if quote == Some(delimiter) {
            return Err(format!("file.quote: {:?} is the delimiter too", file.quote));
        }
        Ok(Self {
            delimiter,
            quote,
            line_end: file.line_end,
            final_line_end: file.final_line_end,
        })
    }
}

impl<R: Read> Rows<R> {
    pub(crate) fn new(input: R, dialect: Dialect) -> io::Result<Self> {
        Ok(Self {
            lines: Lines::new(input)?,
            splitter: Splitter::new(dialect),
            columns: None,
            taken: Taken::default(),
        })
    }

    /// From now on rows have so many columns.
    pub(crate) fn expect_columns(&mut self, columns: usize) {
        self.columns = Some(columns);
    }

    /// The line on which the next row begins, if there is no empty line before it.
    pub(crate) fn line(&self) -> u64 {
        self.lines.number() + self.taken.lines
    }

    /// The next row and the line on which it begins. Empty lines are no rows.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Outcome<'_>)>> {
        self.lines.advance(self.taken.bytes, self.taken.lines);
        self.taken = Taken::default();
        loop {
            let line = self.lines.number();
            match self.lines.ahead(0)? {
                Ahead::Nothing => return Ok(None),
                Ahead::TooLong => {
                    let raw = text_of(self.lines.window(RAW_SHOWN_BYTES));
                    self.lines.skip_line()?;
                    return Ok(Some((line, Err(Broken::too_long(raw)))));
                }
                Ahead::Ends(end) if without_line_end(self.lines.window(end)).is_empty() => {
                    self.lines.advance(end, 1);
                }
                Ahead::Ends(end) => {
                    let framed = self.frame(end)?;
                    return Ok(Some((line, self.outcome(framed))));
                }
            }
        }
    }

    /// Takes as many lines as the row's quotes ask for; of a row whose quotes are broken its first
    /// line alone.
    fn frame(&mut self, first_end: usize) -> io::Result<Result<(), Refusal>> {
        self.splitter.start();
        self.taken = Taken {
            bytes: first_end,
            lines: 1,
        };
        let mut taken = self.taken;
        loop {
            match self.splitter.split(self.lines.window(taken.bytes)) {
                Ok(Split::Whole) => {
                    self.taken = taken;
                    return Ok(self.check_columns(taken.lines));
                }
                Err(refusal) => return Ok(Err(refusal)),
                Ok(Split::OpenQuote) => match self.lines.ahead(taken.bytes)? {
                    Ahead::Ends(end) => {
                        taken.bytes = end;
                        taken.lines += 1;
                    }
                    Ahead::Nothing => {
                        return Ok(Err(self.splitter.never_closed("before the file ends")));
                    }
                    Ahead::TooLong => {
                        let within = format!("within {ROW_BYTES_MAX} bytes");
                        return Ok(Err(self.splitter.never_closed(&within)));
                    }
                },
            }
        }
    }

    fn check_columns(&self, lines: u64) -> Result<(), Refusal> {
        let found = self.splitter.fields.len();
        let Some(columns) = self.columns.filter(|columns| *columns != found) else {
            return Ok(());
        };
        let within = match lines {
            1 => String::new(),
            _ => format!(" in a row of {lines} lines by its quotes"),
        };
        let detail = format!("{found} columns instead of {columns}{within}");
        Err(Refusal::new(Why::Columns, detail))
    }

    fn outcome(&mut self, framed: Result<(), Refusal>) -> Outcome<'_> {
        let bytes = self.lines.window(self.taken.bytes);
        let refused = |refusal| Broken {
            refusal,
            raw: text_of(without_line_end(bytes)),
        };
        framed.map_err(refused)?;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let detail = format!("byte {} is not UTF-8", error.valid_up_to() + 1);
            refused(Refusal::new(Why::Encoding, detail))
        })?;
        Ok(Row {
            text,
            fields: &self.splitter.fields,
            quote: char::from(self.splitter.dialect.quote.unwrap_or_default()),
        })
    }
}

impl<'a> Row<'a> {
    /// The value of a column, without white space around it.
    pub(crate) fn value(self, column: usize) -> Cow<'a, str> {
        let field = self.fields[column];
        let text = self.text[field.start..field.end].trim();
        if field.doubled {
            let quote = self.quote.to_string();
            Cow::Owned(text.replace(&quote.repeat(2), &quote))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The row as it stands in the file, without its line end.
    pub(crate) fn raw(self) -> &'a str {
        let line = self.text.strip_suffix('\n').unwrap_or(self.text);
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// All values.
    pub(crate) fn values(self) -> impl Iterator<Item = Cow<'a, str>> {
        (0..self.fields.len()).map(move |column| self.value(column))
    }
}

/// Splits a row, and goes on where it was when a line is added to the row.
#[derive(Debug)]
struct Splitter {
    dialect: Dialect,
    fields: Vec<Field>,
    /// The quoted field that is open, and how far it was searched for its end.
    open: Option<(Field, usize)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Split {
    Whole,
    /// The last field's quote is open at the end of the line.
    OpenQuote,
}

impl Splitter {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            fields: Vec::new(),
            open: None,
        }
    }

    fn start(&mut self) {
        self.fields.clear();
        self.open = None;
    }

    /// Splits `row`: one or more lines, each with its line end.
    fn split(&mut self, row: &[u8]) -> Result<Split, Refusal> {
        let text = without_line_end(row);
        // Where the next field begins; `None` behind the last.
        let mut next = match self.open.take() {
            None => Some(0),
            Some((field, searched)) => match self.quoted(text, field, searched)? {
                Next::Open => return Ok(Split::OpenQuote),
                Next::Field(at) => at,
            },
        };
        while let Some(at) = next {
            next = if self.dialect.quote.is_some() && text.get(at).copied() == self.dialect.quote {
                let field = Field {
                    start: at + 1,
                    end: at + 1,
                    doubled: false,
                };
                match self.quoted(text, field, at + 1)? {
                    Next::Open => return Ok(Split::OpenQuote),
                    Next::Field(at) => at,
                }
            } else {
                self.unquoted(text, at)
            };
        }
        self.check_line_end(row).map(|()| Split::Whole)
    }

    fn unquoted(&mut self, text: &[u8], start: usize) -> Option<usize> {
        let length = memchr(self.dialect.delimiter, &text[start..]);
        let end = length.map_or(text.len(), |length| start + length);
        self.fields.push(Field {
            start,
            end,
            doubled: false,
        });
        length.map(|_| end + 1)
    }

    fn quoted(&mut self, text: &[u8], mut field: Field, mut from: usize) -> Result<Next, Refusal> {
        let quote = self.dialect.quote.unwrap_or_default();
        while let Some(at) = memchr(quote, &text[from..]).map(|at| from + at) {
            match text.get(at + 1) {
                Some(&byte) if byte == quote => {
                    field.doubled = true;
                    from = at + 2;
                }
                after => {
                    let ends_row = after.is_none();
                    if !ends_row && after != Some(&self.dialect.delimiter) {
                        return Err(self.text_after_quote());
                    }
                    field.end = at;
                    self.fields.push(field);
                    return Ok(Next::Field((!ends_row).then_some(at + 2)));
                }
            }
        }
        self.open = Some((field, text.len()));
        Ok(Next::Open)
    }

    fn check_line_end(&self, row: &[u8]) -> Result<(), Refusal> {
        let found = match row {
            [.., b'\r', b'\n'] => LineEnd::Crlf,
            [.., b'\n'] => LineEnd::Lf,
            // Only the last line of a file.
            _ => LineEnd::Any,
        };
        let detail = match (self.dialect.line_end, found) {
            (LineEnd::Crlf, LineEnd::Lf) => "the line ends with LF, by the mapping with CRLF",
            (LineEnd::Lf, LineEnd::Crlf) => "the line ends with CRLF, by the mapping with LF",
            (_, LineEnd::Any) if self.dialect.final_line_end == FinalLineEnd::Required => {
                "the file ends before the line does"
            }
            _ => return Ok(()),
        };
        Err(Refusal::new(Why::LineEnd, detail))
    }

    fn text_after_quote(&self) -> Refusal {
        let column = self.fields.len() + 1;
        let detail = format!("text after the closing quote in column {column}");
        Refusal::new(Why::Quote, detail)
    }

    fn never_closed(&self, within: &str) -> Refusal {
        let column = self.fields.len() + 1;
        let detail = format!("the quote that opens column {column} is not closed {within}");
        Refusal::new(Why::Quote, detail)
    }
}

enum Next {
    Open,
    /// Where the next field begins; `None` at the end of the row.
    Field(Option<usize>),
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dialect(line_end: LineEnd) -> Dialect {
        Dialect {
            delimiter: b';',
            quote: Some(b'"'),
            line_end,
            final_line_end: FinalLineEnd::Optional,
        }
    }

    /// Every row: its line, and its values or the reason why there are none.
    fn all(text: &[u8], dialect: Dialect, columns: usize) -> Vec<(u64, Result<Vec<String>, Why>)> {
        let mut rows = Rows::new(text, dialect).unwrap();
        rows.expect_columns(columns);
        let mut found = Vec::new();
        while let Some((line, row)) = rows.next().unwrap() {
            let row = row.map(|row| row.values().map(String::from).collect());
            found.push((line, row.map_err(|broken| broken.refusal.why)));
        }
        found
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside Err in tables")]
    fn good(values: &[&str]) -> Result<Vec<String>, Why> {
        Ok(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn rows_and_their_lines() {
        for (text, expected) in [
            ("", vec![]),
            ("\n\r\n\n", vec![]),
            ("a;b", vec![(1, good(&["a", "b"]))]),
            (
                "a;b\r\nc;d\n",
                vec![(1, good(&["a", "b"])), (2, good(&["c", "d"]))],
            ),
            (
                "\na;b\n\n\nc;d",
                vec![(2, good(&["a", "b"])), (5, good(&["c", "d"]))],
            ),
            (";\n", vec![(1, good(&["", ""]))]),
            ("\"\";\"\"", vec![(1, good(&["", ""]))]),
            (" a ;\" b \"", vec![(1, good(&["a", "b"]))]),
            ("\"a;b\";\"c\"\"d\"", vec![(1, good(&["a;b", "c\"d"]))]),
            ("\"\"\"\";x", vec![(1, good(&["\"", "x"]))]),
            ("5\";6\"\n", vec![(1, good(&["5\"", "6\""]))]),
            ("\u{feff}\"a\";ž", vec![(1, good(&["a", "ž"]))]),
            (
                "\"a\nb\r\n\nc\";d\ne;f",
                vec![(1, good(&["a\nb\r\n\nc", "d"])), (5, good(&["e", "f"]))],
            ),
        ] {
            assert_eq!(
                all(text.as_bytes(), dialect(LineEnd::Any), 2),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn broken_rows_are_named_and_the_others_go_on() {
        use Why::{Columns, Quote};
        let a = || (1, good(&["a", "b"]));
        let e = |line| (line, good(&["e", "f"]));
        for (middle, expected) in [
            ("c", vec![(2, Err(Columns))]),
            ("c;d;e", vec![(2, Err(Columns))]),
            ("\"c\" ;d", vec![(2, Err(Quote))]),
            ("\"c\"x;d", vec![(2, Err(Quote))]),
            // Left open, it is found at the next quote, at the end of the file or at the limit.
            ("\"c;d", vec![(2, Err(Quote))]),
            ("c;\"d", vec![(2, Err(Quote))]),
            (
                "\"c;d\n\"g\";h",
                vec![(2, Err(Quote)), (3, good(&["g", "h"]))],
            ),
            (
                "\"c;d\n\"\";h",
                vec![(2, Err(Quote)), (3, good(&["", "h"]))],
            ),
            ("c;\"d\n\"g;h", vec![(2, Err(Quote)), (3, Err(Quote))]),
            // Quoted as it should be, and of too few columns: its second line is no row.
            ("\"c;d\ng;h\"", vec![(2, Err(Columns))]),
            ("c;\"d\n1;2\n\";g", vec![(2, Err(Columns))]),
        ] {
            let text = format!("a;b\n{middle}\ne;f\n");
            let mut rows = vec![a()];
            let last = text.lines().count() as u64;
            rows.extend(expected);
            rows.push(e(last));
            assert_eq!(
                all(text.as_bytes(), dialect(LineEnd::Any), 2),
                rows,
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_last_row_cut_off_in_a_quote_is_refused_alone() {
        let rows = all(b"a;\"b\"\r\nc;\"d\"\r\ne;\"f", dialect(LineEnd::Crlf), 2);
        assert_eq!(
            rows,
            [
                (1, good(&["a", "b"])),
                (2, good(&["c", "d"])),
                (3, Err(Why::Quote))
            ]
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8() {
        let rows = all(b"a;b\nc;\xe9\ne;f", dialect(LineEnd::Any), 2);
        assert_eq!(
            rows,
            [
                (1, good(&["a", "b"])),
                (2, Err(Why::Encoding)),
                (3, good(&["e", "f"]))
            ]
        );
    }

    #[test]
    fn line_ends_are_those_of_the_mapping() {
        let text = b"a;b\nc;d\r\n\"e\nf\";g\r\nh;i";
        let why = |line_end| -> Vec<_> {
            let rows = all(text, dialect(line_end), 2).into_iter();
            rows.map(|(line, row)| (line, row.err())).collect()
        };
        assert_eq!(
            why(LineEnd::Any),
            [(1, None), (2, None), (3, None), (5, None)]
        );
        assert_eq!(
            why(LineEnd::Crlf),
            [(1, Some(Why::LineEnd)), (2, None), (3, None), (5, None)]
        );
        assert_eq!(
            why(LineEnd::Lf),
            [
                (1, None),
                (2, Some(Why::LineEnd)),
                (3, Some(Why::LineEnd)),
                (4, Some(Why::LineEnd)),
                (5, None)
            ]
        );
    }

    #[test]
    fn a_last_line_without_its_end_may_be_cut_off() {
        let required = Dialect {
            final_line_end: FinalLineEnd::Required,
            ..dialect(LineEnd::Any)
        };
        for (text, last) in [
            ("a;b\nc;d\n", good(&["c", "d"])),
            ("a;b\nc;d\r\n", good(&["c", "d"])),
            ("a;b\nc;d", Err(Why::LineEnd)),
            ("a;b\nc;d\r", Err(Why::LineEnd)),
            ("a;b\nc;\"d\"", Err(Why::LineEnd)),
            ("a;b\nc", Err(Why::LineEnd)),
        ] {
            let rows = all(text.as_bytes(), required, 2);
            assert_eq!(rows, [(1, good(&["a", "b"])), (2, last)], "{text:?}");
        }
    }

    #[test]
    fn rows_that_are_too_long_are_refused_and_the_others_go_on() {
        let long = "x".repeat(ROW_BYTES_MAX);
        let text = format!("a;b\n{long};d\n\"e;{}\ng;h", "\n".repeat(ROW_BYTES_MAX));
        let rows = all(text.as_bytes(), dialect(LineEnd::Any), 2);
        let last = 4 + ROW_BYTES_MAX as u64;
        assert_eq!(
            rows,
            [
                (1, good(&["a", "b"])),
                (2, Err(Why::TooLong)),
                (3, Err(Why::Quote)),
                (last, good(&["g", "h"]))
            ]
        );
    }

    #[test]
    fn quotes_may_be_ordinary_characters() {
        let plain = Dialect {
            quote: None,
            ..dialect(LineEnd::Any)
        };
        let expected = [(1, good(&["\"a", "b\""])), (2, good(&["\"", "\"\""]))];
        assert_eq!(all(b"\"a;b\"\n\";\"\"", plain, 2), expected);
    }

    #[test]
    fn wrong_dialects_are_named() {
        let table = |delimiter: &str, quote: &str| FileTable {
            delimiter: delimiter.into(),
            quote: quote.into(),
            ..FileTable::default()
        };
        assert!(Dialect::new(&table("\t", "'")).is_ok());
        for (delimiter, quote, key) in [
            ("", "\"", "file.delimiter"),
            (";;", "\"", "file.delimiter"),
            ("\n", "\"", "file.delimiter"),
            ("ž", "\"", "file.delimiter"),
            (";", "''", "file.quote"),
            (";", ";", "file.quote"),
        ] {
            let error = Dialect::new(&table(delimiter, quote)).unwrap_err();
            assert!(error.starts_with(key), "{error}");
        }
    }

    /// What the `csv` crate reads.
    fn by_the_crate(text: &[u8]) -> Vec<Vec<String>> {
        let mut reader = ::csv::ReaderBuilder::new();
        reader
            .delimiter(b';')
            .has_headers(false)
            .flexible(true)
            .trim(::csv::Trim::All);
        let records = reader.from_reader(text).into_records().map(Result::unwrap);
        records
            .map(|record| record.iter().map(String::from).collect())
            .collect()
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read(
            rows in prop::collection::vec(prop::collection::vec("[ab;\"\r\n ž]{0,5}", 3), 0..6),
            crlf: bool,
        ) {
            let mut writer = ::csv::WriterBuilder::new();
            writer.delimiter(b';').quote_style(::csv::QuoteStyle::Always);
            if crlf {
                writer.terminator(::csv::Terminator::CRLF);
            }
            let mut writer = writer.from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let line_end = if crlf { LineEnd::Crlf } else { LineEnd::Lf };
            let read = all(&text, dialect(line_end), 3).into_iter().map(|(_, row)| row.unwrap());
            let trimmed = |row: &Vec<String>| row.iter().map(|v| v.trim().to_owned()).collect();
            prop_assert_eq!(read.collect::<Vec<_>>(), rows.iter().map(trimmed).collect::<Vec<Vec<_>>>());
        }

        #[test]
        fn what_is_read_whole_is_what_the_csv_crate_reads(text in "[ab;\"\n]{0,40}") {
            for columns in 1..4 {
                let rows = all(text.as_bytes(), dialect(LineEnd::Any), columns);
                let values: Option<Vec<_>> = rows.into_iter().map(|(_, row)| row.ok()).collect();
                if let Some(values) = values {
                    prop_assert_eq!(&values, &by_the_crate(text.as_bytes()), "{:?}", text);
                }
            }
        }

        #[test]
        fn any_bytes_are_rows_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for line_end in [LineEnd::Any, LineEnd::Crlf, LineEnd::Lf] {
                all(&bytes, dialect(line_end), 2);
            }
        }
    }
}
