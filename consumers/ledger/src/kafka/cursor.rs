//! Where an active partition stands, and what it believes of the records that come.

use crate::chain;
use crate::kafka::log::Bounds;
use crate::kafka::stop::Stop;
use crate::planted::{self, Bug};
use crate::record::Record;
use crate::store::{Anchor, Position};

/// Where an active partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The partition.
    partition: i32,
    /// Of the position: another one means that an operator has moved it.
    pub(super) incarnation: i32,
    /// What the database has applied.
    pub(super) position: i64,
    /// The next offset to take in.
    pub(super) next: i64,
    /// The last applied record, where the log still has it.
    anchor: Option<Anchor>,
    /// Whether the log has shown that record since the last seek, or does not have to.
    recognised: bool,
    /// What came instead of what should: believed when it comes again after a seek.
    doubt: Option<Doubt>,
    /// Whether records are ignored until the seek is done.
    seeking: bool,
    /// The end of the log before a seek: believed when no record comes before the partition's end.
    tail: Option<i64>,
    /// How often it was asked for a tail since the last record came.
    quiet_asks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// A record beyond the one that should have come.
    Record(i64),
    /// The partition's end.
    End,
}

/// What to do with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is the next one.
    In,
    /// It is of no use.
    Passed,
    /// It shows that the partition must stop.
    Stop(Stop),
}

impl Cursor {
    /// Begins at a position that fits the log's bounds. The last applied record is read again first,
    /// where the log still has it: it tells a log that is another one.
    pub(super) fn new(found: &Position, bounds: Bounds) -> Self {
        let anchor = found
            .anchor
            .filter(|anchor| anchor.offset >= bounds.start && !planted::has(Bug::NoAnchor));
        Self {
            partition: found.partition,
            incarnation: found.incarnation,
            position: found.position,
            next: found.position,
            anchor,
            recognised: anchor.is_none(),
            doubt: None,
            seeking: false,
            tail: None,
            quiet_asks: 0,
        }
    }

    /// Where to read from.
    pub(super) fn read_from(&self) -> i64 {
        match self.anchor {
            Some(anchor) if !self.recognised => anchor.offset,
            _ => self.next,
        }
    }

    /// Whether the log has shown the last applied record, or does not have to.
    pub(super) fn is_recognised(&self) -> bool {
        self.recognised
    }

    /// The database has applied up to `next`; `anchor` is the last record of that.
    pub(super) fn committed(&mut self, next: i64, anchor: Option<Anchor>) {
        self.position = next;
        if !planted::has(Bug::NoAnchor) {
            self.anchor = anchor.or(self.anchor);
        }
    }

    /// Whether a seek has to settle a doubt.
    pub(super) fn is_seeking(&self) -> bool {
        self.seeking
    }

    /// The log holds `bounds`: gives the offset to seek to, to settle a doubt. Every seek begins at the last
    /// applied record: the log may have become another one since it was shown.
    pub(super) fn seek_from(&mut self, bounds: Bounds) -> Result<i64, Stop> {
        fit(self.partition, self.next, bounds)?;
        self.anchor = self.anchor.filter(|anchor| anchor.offset >= bounds.start);
        self.recognised = self.anchor.is_none();
        Ok(self.read_from())
    }

    /// The seek is done: records count again.
    pub(super) fn sought(&mut self) {
        self.seeking = false;
    }

    /// Whether this record is the next one; if so it counts as taken in.
    pub(super) fn take(
        &mut self,
        record: &Record,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Taken {
        self.quiet_asks = 0;
        if self.seeking {
            return Taken::Passed;
        }
        if let Some(anchor) = self.anchor.filter(|_| !self.recognised) {
            return self.compare(anchor, record, key, value);
        }
        if record.offset < self.next {
            return Taken::Passed;
        }
        let first = self.next == self.position && !planted::has(Bug::BelieveHole);
        if record.offset > self.next && first && !self.is_believed(Doubt::Record(record.offset)) {
            return Taken::Passed;
        }
        self.next = record.offset + i64::from(!planted::has(Bug::MaxOffset));
        (self.doubt, self.tail) = (None, None);
        Taken::In
    }

    /// Whether this is the last applied record. One beyond it may only have come too early.
    fn compare(
        &mut self,
        anchor: Anchor,
        record: &Record,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Taken {
        let is_another = if record.offset == anchor.offset {
            record.timestamp != anchor.timestamp || chain::anchor(key, value) != anchor.digest
        } else {
            record.offset > anchor.offset && self.is_believed(Doubt::Record(record.offset))
        };
        if is_another {
            return Taken::Stop(self.another_log(anchor));
        }
        if record.offset == anchor.offset {
            self.recognised = true;
            self.doubt = self.doubt.filter(|doubt| *doubt != Doubt::End);
        }
        Taken::Passed
    }

    fn another_log(&self, anchor: Anchor) -> Stop {
        Stop::AnotherLog {
            partition: self.partition,
            offset: anchor.offset,
        }
    }

    /// Whether this was seen before a seek and now again; if not, asks for the seek.
    fn is_believed(&mut self, doubt: Doubt) -> bool {
        if self.doubt == Some(doubt) {
            return true;
        }
        self.doubt = Some(doubt);
        self.seeking = true;
        false
    }

    /// The log seems to go on to `end` without a record. Asks for a seek, to prove it, when none has
    /// come while this was asked `patience` times before.
    pub(super) fn prove_tail(&mut self, end: i64, patience: u32) {
        let quiet = self.quiet_asks >= patience;
        self.quiet_asks = self.quiet_asks.saturating_add(1);
        let is_settled = self.next == self.position && !self.seeking && self.recognised;
        if quiet && is_settled && end > self.next && self.tail.is_none() {
            self.tail = Some(end);
            self.seeking = true;
            if planted::has(Bug::BelieveTail) {
                (self.next, self.seeking) = (end, false);
            }
        }
    }

    /// Everything before `end` was handed out, the partition's end as its leader had it: if no record came
    /// since the seek, what is before it is a hole, and the last applied record is missing. A leader that
    /// is new may have an earlier end than the one before.
    pub(super) fn end(&mut self, end: i64) -> Result<(), Stop> {
        if self.seeking {
            return Ok(());
        }
        let tail = self.tail.take();
        if let Some(anchor) = self.anchor.filter(|_| !self.recognised) {
            return match (self.is_believed(Doubt::End), end > anchor.offset) {
                (false, _) => Ok(()),
                (true, true) => Err(self.another_log(anchor)),
                (true, false) => Err(Stop::PositionBeyondEnd {
                    partition: self.partition,
                    end,
                    position: self.position,
                }),
            };
        }
        let tail = tail.filter(|tail| end >= *tail);
        self.next = self.next.max(tail.unwrap_or(self.next));
        Ok(())
    }
}

/// Whether a position lies within the log.
pub(super) fn fit(partition: i32, position: i64, bounds: Bounds) -> Result<(), Stop> {
    let Bounds { start, end } = bounds;
    if start > position {
        Err(Stop::LogStartBeyond {
            partition,
            start,
            position,
        })
    } else if position > end {
        Err(Stop::PositionBeyondEnd {
            partition,
            end,
            position,
        })
    } else {
        Ok(())
    }
}
