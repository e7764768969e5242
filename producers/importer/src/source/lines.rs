//! A window that slides over the input line by line, and can look further ahead.

use std::io::{self, Read};

use memchr::memchr;

/// The longest row, its lines together: far more than any transaction needs (its metadata has at most
/// 4 KiB), so that a quote or a line that never ends costs a bounded amount of memory.
pub(crate) const ROW_BYTES_MAX: usize = 256 * 1024;

/// Room for the longest row and for what is read behind it.
const BUFFER_BYTES: usize = 2 * ROW_BYTES_MAX;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The input from the next line on. A line ends with its line feed, the last may do without.
pub(crate) struct Lines<R> {
    input: R,
    buffer: Box<[u8]>,
    start: usize,
    filled: usize,
    ended: bool,
    number: u64,
}

/// A line ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// The line, line feed included, ends so many bytes after the start of the window.
    Ends(usize),
    /// No line feed within [`ROW_BYTES_MAX`] of the start of the window.
    TooLong,
    /// No further line.
    Nothing,
}

impl<R: Read> Lines<R> {
    /// Starts behind a byte order mark, if there is one.
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let mut lines = Self {
            input,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            filled: 0,
            ended: false,
            number: 1,
        };
        while lines.filled < BYTE_ORDER_MARK.len() && !lines.ended {
            lines.fill()?;
        }
        if lines.buffer[..lines.filled].starts_with(&BYTE_ORDER_MARK) {
            lines.start = BYTE_ORDER_MARK.len();
        }
        Ok(lines)
    }

    /// The number of the line at the start of the window, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Looks for the end of the line that begins `from` bytes after the start of the window.
    pub(crate) fn ahead(&mut self, from: usize) -> io::Result<Ahead> {
        let mut searched = from;
        loop {
            let unsearched = &self.buffer[self.start + searched..self.filled];
            let (end, is_line) = match memchr(b'\n', unsearched) {
                Some(at) => (searched + at + 1, true),
                None => (self.filled - self.start, self.ended),
            };
            if end > ROW_BYTES_MAX {
                return Ok(Ahead::TooLong);
            }
            if is_line {
                return Ok(if end > from {
                    Ahead::Ends(end)
                } else {
                    Ahead::Nothing
                });
            }
            searched = end;
            self.fill()?;
        }
    }

    /// The first `length` bytes of the window.
    pub(crate) fn window(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    /// Moves the window to the line that begins after `length` bytes and `lines` lines.
    pub(crate) fn advance(&mut self, length: usize, lines: u64) {
        self.start += length;
        self.number += lines;
    }

    /// Moves the window behind a line that is too long for it.
    pub(crate) fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let line_feed = memchr(b'\n', &self.buffer[self.start..self.filled]);
            match line_feed {
                Some(at) => self.start += at + 1,
                None => self.start = self.filled,
            }
            if line_feed.is_some() || self.ended {
                self.number += 1;
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Reads once. There is room, because the window is never longer than [`ROW_BYTES_MAX`] then.
    fn fill(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

/// A line without its line end.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            into[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn all(input: impl Read) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(input).unwrap();
        let mut found = Vec::new();
        loop {
            let number = lines.number();
            match lines.ahead(0).unwrap() {
                Ahead::Nothing => return found,
                Ahead::TooLong => {
                    found.push((number, None));
                    lines.skip_line().unwrap();
                }
                Ahead::Ends(end) => {
                    found.push((number, Some(lines.window(end).to_vec())));
                    lines.advance(end, 1);
                }
            }
        }
    }

    #[test]
    fn lines_keep_their_ends_and_numbers() {
        for (input, expected) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a\n", vec!["a\n"]),
            ("a\r\nb", vec!["a\r\n", "b"]),
            ("\n\nb\n", vec!["\n", "\n", "b\n"]),
            ("\u{feff}a\nb\n", vec!["a\n", "b\n"]),
            ("\u{feff}", vec![]),
            ("\u{fe}", vec!["\u{fe}"]),
        ] {
            let expected: Vec<_> = (1..)
                .zip(expected.iter().map(|line| Some(line.as_bytes().to_vec())))
                .collect();
            assert_eq!(all(input.as_bytes()), expected, "{input:?}");
            assert_eq!(all(Slowly(input.as_bytes())), expected, "{input:?}, slowly");
        }
    }

    #[test]
    fn lines_that_are_too_long_are_passed_over() {
        let longest = "x".repeat(ROW_BYTES_MAX - 1);
        let too_long = "y".repeat(ROW_BYTES_MAX);
        let huge = "z".repeat(5 * ROW_BYTES_MAX);
        let input = format!("a\n{longest}\n{too_long}\nb\n{huge}\n{longest}\n{huge}");
        let lengths: Vec<_> = all(input.as_bytes())
            .into_iter()
            .map(|(number, line)| (number, line.map(|line| line.len())))
            .collect();
        let longest = Some(ROW_BYTES_MAX);
        assert_eq!(
            lengths,
            [
                (1, Some(2)),
                (2, longest),
                (3, None),
                (4, Some(2)),
                (5, None),
                (6, longest),
                (7, None)
            ]
        );
    }
}
