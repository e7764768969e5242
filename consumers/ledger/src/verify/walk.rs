//! The walk through a partition: batch by batch, row by row, the chain over all of it.

use sqlx::PgConnection;

use crate::chain::{Chain, GENESIS, Head, Numbers};
use crate::verify::batches::{Batch, read_batches};
use crate::verify::log::Log;
use crate::verify::row::Row;
use crate::verify::rows::Rows;
use crate::verify::{Error, Report, log};

/// A partition's row in `positions`.
#[derive(Debug)]
pub(super) struct End {
    pub(super) partition: i32,
    pub(super) position: i64,
    pub(super) start_offset: i64,
    pub(super) incarnation: i32,
    pub(super) next_seq: i64,
    pub(super) next_batch: i64,
    pub(super) chain_head: Vec<u8>,
    pub(super) parked_open: i64,
    pub(super) anchor_offset: Option<i64>,
    pub(super) anchor_timestamp: Option<i64>,
    pub(super) anchor_digest: Option<Vec<u8>>,
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) head: Head,
    pub(super) next_batch: i64,
    pub(super) next_seq: i64,
    pub(super) incarnation: i32,
    /// None before the first batch.
    pub(super) next_offset: Option<i64>,
}

impl Start {
    /// Before the first batch.
    pub(super) const GENESIS: Self = Self {
        head: GENESIS,
        next_batch: 0,
        next_seq: 0,
        incarnation: 0,
        next_offset: None,
    };

    /// Where the log is to be compared from: only what belongs to the current incarnation; earlier
    /// ones may have been another log.
    pub(super) fn log_from(&self, end: &End) -> i64 {
        match self.next_offset {
            Some(offset) if self.incarnation == end.incarnation => offset,
            _ => end.start_offset,
        }
    }
}

/// Where the walk through a partition is.
pub(super) struct Walk {
    pub(super) partition: i32,
    pub(super) head: Head,
    pub(super) next_seq: i64,
    pub(super) next_batch: i64,
    pub(super) incarnation: i32,
    /// Where the incarnation began, if the walk has seen it.
    start_offset: Option<i64>,
    next_offset: Option<i64>,
    /// Whether nothing before the walk is taken on trust.
    is_whole: bool,
    parked_open: i64,
}

/// Walks from `start` to `end`, and through the log beside it. The first failure of the tables ends
/// the walk through this partition.
pub(super) async fn walk(
    connection: &mut PgConnection,
    (start, end): (&Start, &End),
    mut log: Option<&mut Log>,
    report: &mut Report,
    progress: &mut impl FnMut(&Report),
) -> Result<(), Error> {
    let mut walk = Walk::new(end.partition, start);
    if let Some(log) = &mut log {
        log.begin(end, start.log_from(end), report).await?;
    }
    while walk.next_batch < end.next_batch {
        let chunk = read_batches(connection, end, walk.next_batch, walk.next_seq).await?;
        let Some(last) = chunk.last() else {
            report.find("batches", walk.place(), "the batch is missing".into());
            break;
        };
        let seqs = walk.next_seq..last.numbers.next_seq;
        let rows = Rows::read(connection, end.partition, seqs).await?;
        log::compare_replays(connection, end.partition, &chunk, &rows, report).await?;
        if let Some(log) = &mut log {
            log.compare(connection, end, &chunk, &rows, report).await?;
        }
        if let Err(detail) = walk.chunk(&chunk, rows, report) {
            report.find("chain", walk.place(), detail);
            break;
        }
        progress(report);
    }
    if walk.next_batch >= end.next_batch {
        walk.arrive(end, report);
    }
    if let Some(log) = log {
        log.finish(end, report).await?;
    }
    Ok(())
}

impl Walk {
    pub(super) fn new(partition: i32, start: &Start) -> Self {
        Self {
            partition,
            head: start.head,
            next_seq: start.next_seq,
            next_batch: start.next_batch,
            incarnation: start.incarnation,
            start_offset: None,
            next_offset: start.next_offset,
            is_whole: start.next_batch == 0,
            parked_open: 0,
        }
    }

    pub(super) fn place(&self) -> String {
        format!(
            "partition {}, batch {}, seq {}",
            self.partition, self.next_batch, self.next_seq
        )
    }

    fn chunk(
        &mut self,
        chunk: &[Batch],
        mut rows: Rows,
        report: &mut Report,
    ) -> Result<(), String> {
        for batch in chunk {
            let take = |seq| rows.take(seq).ok_or_else(|| "no table has the row".into());
            self.step(batch, take, report)?;
        }
        rows.finish()
    }

    /// One batch: its numbers, its rows, its head. `take` gives the row with a `seq`.
    pub(super) fn step(
        &mut self,
        batch: &Batch,
        mut take: impl FnMut(i64) -> Result<Row, String>,
        report: &mut Report,
    ) -> Result<(), String> {
        let numbers = &batch.numbers;
        if numbers.batch != self.next_batch || numbers.first_seq != self.next_seq {
            return Err(format!(
                "batch {} begins at seq {}",
                numbers.batch, numbers.first_seq
            ));
        }
        let continues = self.next_offset == Some(numbers.from_offset);
        if self.incarnation == numbers.incarnation && !continues {
            return Err(format!(
                "the batch begins at offset {}, the one before ended at {:?}",
                numbers.from_offset, self.next_offset
            ));
        }
        let mut chain = Chain::after(&self.head);
        let mut counted = Numbers {
            posted: 0,
            rejected: 0,
            refused: 0,
            // Resolutions of parked records lower the count.
            parked: 0,
            discarded: 0,
            ..*numbers
        };
        while self.next_seq < numbers.next_seq {
            let row = take(self.next_seq)?;
            row.enter(&mut chain, &mut counted)?;
            self.next_seq += 1;
            report.rows += 1;
        }
        if counted != *numbers {
            return Err(format!(
                "the rows count as {counted:?}, the batch says {numbers:?}"
            ));
        }
        let head = chain.close(numbers);
        if head[..] != batch.chain_head[..] {
            return Err("the rows and counts do not lead to the stored chain head".into());
        }
        if self.incarnation != numbers.incarnation {
            self.start_offset = Some(numbers.from_offset);
        }
        self.head = head;
        self.next_batch += 1;
        self.next_offset = Some(numbers.next_offset);
        self.incarnation = numbers.incarnation;
        self.parked_open += i64::from(numbers.parked);
        report.batches += 1;
        Ok(())
    }

    /// After the last batch: it must have led to the position.
    fn arrive(&self, end: &End, report: &mut Report) {
        let stored = (
            end.next_seq,
            end.position,
            end.start_offset,
            end.incarnation,
            end.parked_open,
            &end.chain_head[..],
        );
        // Without a batch there is nothing to hold these against.
        let any = self.next_batch > 0;
        let walked = (
            self.next_seq,
            self.next_offset.unwrap_or(end.start_offset),
            self.start_offset.unwrap_or(end.start_offset),
            if any {
                self.incarnation
            } else {
                end.incarnation
            },
            // What was open before the walk began is not known.
            if self.is_whole {
                self.parked_open
            } else {
                end.parked_open
            },
            &self.head[..],
        );
        if stored != walked {
            let detail = format!(
                "the position's (next seq, position, start, incarnation, open parked, chain head) is \
                 {stored:?}, the batches lead to {walked:?}"
            );
            report.find("positions", self.place(), detail);
        }
    }
}
