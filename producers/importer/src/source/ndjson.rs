//! One transaction as JSON in each line.

use std::io::{self, Read};

use millrace_schemas::codec::decode_json;

use super::lines::{Ahead, Lines, without_line_end};
use super::{Broken, Item, RAW_SHOWN_BYTES, Unreadable, owned_transaction};
use crate::refused::{Refusal, Why};

/// The objects of a file. Empty lines are passed over.
pub(crate) struct Objects<R>(Lines<R>);

impl<R: Read> Objects<R> {
    pub(crate) fn new(input: R) -> io::Result<Self> {
        Lines::new(input).map(Self)
    }

    /// The next object.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Unreadable> {
        loop {
            let line = self.0.number();
            let unreadable = |error| Unreadable::line(line, &error);
            match self.0.ahead(0).map_err(unreadable)? {
                Ahead::Nothing => return Ok(None),
                Ahead::TooLong => {
                    let raw = String::from_utf8_lossy(self.0.window(RAW_SHOWN_BYTES)).into_owned();
                    self.0.skip_line().map_err(unreadable)?;
                    return Ok(Some(Item::new(line, Err(Broken::too_long(raw)))));
                }
                Ahead::Ends(end) => {
                    let text = without_line_end(self.0.window(end));
                    let item = (!text.trim_ascii().is_empty()).then(|| item(line, text));
                    self.0.advance(end, 1);
                    if item.is_some() {
                        return Ok(item);
                    }
                }
            }
        }
    }
}

/// The decoder sees one line and calls it line 1; which line it is the refusal says.
fn without_line(problem: &str) -> String {
    problem.replacen(" at line 1 column ", " at column ", 1)
}

fn item(line: u64, text: &[u8]) -> Item {
    let decoded = decode_json(text)
        .map_err(|error| Refusal::new(Why::Undecodable, without_line(&error.to_string())))
        .and_then(owned_transaction);
    let broken = |refusal| Broken {
        refusal,
        raw: String::from_utf8_lossy(text).into_owned(),
    };
    Item::new(line, decoded.map_err(broken))
}
