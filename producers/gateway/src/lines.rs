//! A stream of chunks to lines.

use bytes::{Bytes, BytesMut};

/// Holds the bytes behind the last whole line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// No line ends before this: a long line that comes in small chunks is searched once.
    searched: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, without its end.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let Some(position) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + position + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }

    /// What is left when no chunk follows: the last line may have no end.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let rest = self.buffer.split();
        (!rest.is_empty()).then(|| rest.freeze())
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next() {
                found.push(line.to_vec());
            }
        }
        found.extend(lines.rest().map(|line| line.to_vec()));
        found
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        for (text, expected) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a\n", vec!["a"]),
            ("a\n\nb", vec!["a", "", "b"]),
        ] {
            let found = split(&[text.as_bytes()]);
            let expected: Vec<_> = expected.iter().map(|l| l.as_bytes().to_vec()).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_boundaries_of_chunks_do_not_matter(text in "[a\n\u{e9}\u{1f600}]{0,60}", size in 1..9_usize) {
            let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(split(&chunks), split(&[text.as_bytes()]));
        }
    }
}
