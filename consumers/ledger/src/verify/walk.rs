//! The walk through a partition: batch by batch, row by row, the chain over all of it.

use sqlx::PgConnection;

use crate::chain::{AcceptanceRow, Chain, GENESIS, Head, Numbers};
use crate::verify::batches::{Batch, read_batches};
use crate::verify::log::Log;
use crate::verify::row::Row;
use crate::verify::rows::Rows;
use crate::verify::{Counts, Error, Report, log};

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
    pub(super) next_offset: Option<i64>,
    /// What the batches of the walk count.
    pub(super) counts: Counts,
    /// When its first batch was recorded.
    pub(super) begun_at: Option<i64>,
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
        log.begin(connection, end, start.log_from(end), report)
            .await?;
    }
    while walk.next_batch < end.next_batch {
        let chunk = read_batches(connection, end, walk.next_batch, walk.next_seq).await?;
        let Some(last) = chunk.last() else {
            report.find("batches", walk.place(), "the batch is missing".into());
            break;
        };
        let seqs = walk.next_seq..last.numbers.next_seq;
        let rows = match Rows::read(connection, end.partition, seqs.clone()).await {
            Err(sqlx::Error::ColumnDecode { index, source }) => {
                let detail = format!(
                    "a row with seq {} to {} cannot be read: column {index}: {source}",
                    seqs.start,
                    seqs.end - 1
                );
                report.find("chain", walk.place(), detail);
                break;
            }
            rows => rows?,
        };
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
            counts: Counts::default(),
            begun_at: None,
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
            self.step(batch, |seq| rows.take(seq), report)?;
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
                "the batch begins at offset {}, the one before ended at {}",
                numbers.from_offset,
                shown(self.next_offset)
            ));
        }
        let mut chain = Chain::after(&self.head);
        self.begin_incarnation(batch, &mut chain)?;
        let mut counted = Numbers {
            posted: 0,
            rejected: 0,
            refused: 0,
            // Resolutions of parked records lower the count.
            parked: 0,
            discarded: 0,
            ..*numbers
        };
        let mut log_offset = None;
        while self.next_seq < numbers.next_seq {
            let row = take(self.next_seq)?;
            row.is_in(numbers, &mut log_offset)?;
            row.enter(&mut chain, &mut counted)?;
            self.next_seq += 1;
            report.rows += 1;
        }
        // What is wrong now is wrong with the batch, and no row of it is better than another.
        let whole = format!("with seq {} to {}", numbers.first_seq, numbers.next_seq - 1);
        self.next_seq = numbers.first_seq;
        if let Some(difference) = difference(&counted, numbers) {
            return Err(format!("the rows {whole} count as {difference}"));
        }
        let head = chain.close(numbers);
        if head[..] != batch.chain_head[..] {
            return Err(format!(
                "the rows {whole} and the counts do not lead to the stored chain head"
            ));
        }
        self.next_seq = numbers.next_seq;
        if self.incarnation != numbers.incarnation {
            self.start_offset = Some(numbers.from_offset);
        }
        self.head = head;
        self.next_batch += 1;
        self.next_offset = Some(numbers.next_offset);
        self.incarnation = numbers.incarnation;
        self.parked_open += i64::from(numbers.parked);
        self.counts.add_numbers(numbers);
        self.begun_at.get_or_insert(numbers.recorded_at);
        report.batches += 1;
        Ok(())
    }

    /// An incarnation but the first begins where an operator accepted it.
    fn begin_incarnation(&self, batch: &Batch, chain: &mut Chain) -> Result<(), String> {
        let Batch {
            numbers,
            acceptance,
            ..
        } = batch;
        let begins = numbers.incarnation > 1 && self.incarnation != numbers.incarnation;
        let acceptance = match (begins, acceptance) {
            (true, Some(acceptance)) => acceptance,
            (false, None) => return Ok(()),
            (false, Some(_)) => return Err("what was accepted for it began before".into()),
            (true, None) => {
                return Err(format!(
                    "nobody has accepted that incarnation {} begins here",
                    numbers.incarnation
                ));
            }
        };
        let (previous, ended) = (acceptance.previous_position, self.next_offset);
        if ended.is_some_and(|ended| ended != previous) {
            return Err(format!(
                "what was accepted follows on offset {previous}, the batch before ended at {}",
                shown(ended)
            ));
        }
        chain.acceptance(&AcceptanceRow {
            previous_position: acceptance.previous_position,
            accepted_at: acceptance.accepted_at.0,
            reason: &acceptance.reason,
            operator: &acceptance.operator,
        });
        Ok(())
    }

    /// After the last batch: it must have led to the position.
    fn arrive(&self, end: &End, report: &mut Report) {
        // Without a batch there is nothing to hold these against.
        let any = self.next_batch > 0;
        let parts = [
            ("next seq", end.next_seq, self.next_seq),
            (
                "position",
                end.position,
                self.next_offset.unwrap_or(end.start_offset),
            ),
            (
                "start",
                end.start_offset,
                self.start_offset.unwrap_or(end.start_offset),
            ),
            (
                "incarnation",
                end.incarnation.into(),
                if any {
                    self.incarnation
                } else {
                    end.incarnation
                }
                .into(),
            ),
            // What was open before the walk began is not known.
            (
                "number of open parked records",
                end.parked_open,
                if self.is_whole {
                    self.parked_open
                } else {
                    end.parked_open
                },
            ),
        ];
        for (name, stored, walked) in parts.into_iter().filter(|(_, s, w)| s != w) {
            let detail = format!("the {name} is {stored}, the batches lead to {walked}");
            report.find("positions", self.place(), detail);
        }
        if end.chain_head != self.head {
            let detail = format!(
                "the chain head is {}, the batches lead to {}",
                hex::encode(&end.chain_head),
                hex::encode(self.head)
            );
            report.find("positions", self.place(), detail);
        }
    }
}

fn shown(offset: Option<i64>) -> String {
    offset.map_or("no offset".into(), |offset| offset.to_string())
}

/// How the rows of a batch are counted otherwise than it says.
fn difference(counted: &Numbers, numbers: &Numbers) -> Option<String> {
    let kinds = [
        ("posted", counted.posted, numbers.posted),
        ("rejected", counted.rejected, numbers.rejected),
        ("refused", counted.refused, numbers.refused),
        ("parked", counted.parked, numbers.parked),
        ("discarded", counted.discarded, numbers.discarded),
    ];
    let mut differing = kinds.into_iter().filter(|(_, rows, batch)| rows != batch);
    differing
        .next()
        .map(|(kind, rows, batch)| format!("{rows} {kind}, the batch says {batch}"))
}
