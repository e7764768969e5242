//! The ledger as a file, in the order of its hash chains, and the proof over such a file.
//!
//! One JSON object a line: first `export`, then each `batch` of each partition followed by its rows
//! (`ledger`, `refused`, `parked`, `resolution`) in order of `seq`, at last `end`. Moments are RFC 3339, bytes are
//! hexadecimal digits; all else is named as the columns of the tables are.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::verify::batches::{Batch, ends, read_batches};
use crate::verify::checkpoint::{Checkpoint, Found, Mark, UNMARKED};
use crate::verify::row::Row;
use crate::verify::rows::Rows;
use crate::verify::walk::{Start, Walk};
use crate::verify::{Report, checkpoint};

/// The version of the lines.
const VERSION: u32 = 1;

/// A longer line is not one of ours: a record of Kafka's default size has 2 MiB as digits.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How many lines pass between two calls of `progress`.
const PROGRESS_LINES: u64 = 20_000;

/// How lines begin that are not rows.
const FRAMES: [&[u8]; 3] = [b"{\"export\":", b"{\"batch\":", b"{\"end\":"];

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Export(Head),
    Batch(Batch),
    End(Tail),
    /// Written and read as the row itself.
    #[serde(skip)]
    Row(Row),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    database: Uuid,
    topic: String,
}

/// The last line: what there must have been before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Partitions with a position.
    pub partitions: usize,
    /// Batches.
    pub batches: u64,
    /// Rows.
    pub rows: u64,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The file cannot be written.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
    /// What is stored is not as it must be.
    #[error("{0}; run: millrace verify")]
    Broken(String),
}

/// Writes everything up to the positions that are there now, beside live load.
pub async fn write(
    connection: &mut PgConnection,
    out: &mut impl Write,
    mut progress: impl FnMut(&Tail),
) -> Result<Tail, Error> {
    let log = checkpoint::log(connection).await?;
    let log = log.ok_or_else(|| Error::Broken("nothing of a topic was ever read".into()))?;
    let head = Head {
        version: VERSION,
        database: log.database,
        topic: log.topic,
    };
    write_line(out, &Line::Export(head))?;
    let mut tail = Tail::default();
    for end in ends(connection).await? {
        let (mut batch, mut seq) = (0, 0);
        while batch < end.next_batch {
            let chunk = read_batches(connection, &end, batch, seq).await?;
            let Some(last) = chunk.last() else {
                let partition = end.partition;
                return Err(Error::Broken(format!(
                    "batch {batch} of partition {partition} is missing"
                )));
            };
            let next = (last.numbers.batch + 1, last.numbers.next_seq);
            let rows = Rows::read(connection, end.partition, seq..next.1).await?;
            write_chunk(out, chunk, rows, &mut tail)?;
            (batch, seq) = next;
            progress(&tail);
        }
        tail.partitions += 1;
    }
    write_line(out, &Line::End(tail))?;
    out.flush()?;
    Ok(tail)
}

fn write_chunk(
    out: &mut impl Write,
    chunk: Vec<Batch>,
    mut rows: Rows,
    tail: &mut Tail,
) -> Result<(), Error> {
    for batch in chunk {
        let (partition, seqs) = (
            batch.numbers.partition,
            batch.numbers.first_seq..batch.numbers.next_seq,
        );
        write_line(out, &Line::Batch(batch))?;
        tail.batches += 1;
        for seq in seqs {
            let row = rows.take(seq).map_err(|detail| {
                Error::Broken(format!("partition {partition}, seq {seq}: {detail}"))
            })?;
            write_line(out, &row)?;
            tail.rows += 1;
        }
    }
    Ok(())
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Computes the chains of an export again; they must lead through the checkpoint's heads. Needs no
/// database. The first failure ends the check.
pub fn check(
    input: &mut impl BufRead,
    checkpoint: &Checkpoint,
    mut progress: impl FnMut(&Report),
) -> Report {
    let mut check = Check {
        lines: Lines {
            input,
            number: 0,
            buffer: Vec::new(),
            written: Vec::new(),
        },
        checkpoint,
        walks: BTreeMap::new(),
        report: Report::default(),
    };
    if let Err(detail) = check.run(&mut progress) {
        let place = format!("line {}", check.lines.number);
        check.report.find("export", place, detail);
    } else {
        check.arrive();
    }
    check.report.partitions = check.walks.len();
    check.report
}

struct Check<'a, I> {
    lines: Lines<'a, I>,
    checkpoint: &'a Checkpoint,
    walks: BTreeMap<i32, Walk>,
    report: Report,
}

impl<I: BufRead> Check<'_, I> {
    fn run(&mut self, progress: &mut impl FnMut(&Report)) -> Result<(), String> {
        let Line::Export(head) = self.lines.next()? else {
            return Err("this is no export".into());
        };
        let Checkpoint {
            database, topic, ..
        } = self.checkpoint;
        if head.version != VERSION {
            return Err(format!(
                "the export has version {}, known is {VERSION}",
                head.version
            ));
        }
        if (&head.database, &head.topic) != (database, topic) {
            return Err(format!(
                "the export is of database {} and topic {:?}, the checkpoint of {database} and {topic:?}",
                head.database, head.topic
            ));
        }
        let mut shown = 0;
        loop {
            match self.lines.next()? {
                Line::Batch(batch) => self.batch(&batch)?,
                Line::End(tail) => return self.end(tail),
                Line::Export(_) | Line::Row(_) => return Err("no batch has this row".into()),
            }
            if self.lines.number >= shown + PROGRESS_LINES {
                shown = self.lines.number;
                progress(&self.report);
            }
        }
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), String> {
        let partition = batch.numbers.partition;
        let walk = self
            .walks
            .entry(partition)
            .or_insert_with(|| Walk::new(partition, &Start::GENESIS));
        let lines = &mut self.lines;
        let take = |seq| match lines.next()? {
            Line::Row(row) if row.seq() == seq => Ok(row),
            _ => Err(format!("this is not the row with seq {seq}")),
        };
        let stepped = walk.step(batch, take, &mut self.report);
        stepped.map_err(|detail| format!("{}: {detail}", walk.place()))?;
        let mark = self.checkpoint.mark(partition);
        let Some(mark) = mark.filter(|mark| mark.batches == walk.next_batch) else {
            return Ok(());
        };
        let found = Found {
            incarnation: walk.incarnation,
            position: walk.next_offset.unwrap_or_default(),
            next_seq: walk.next_seq,
            head: walk.head,
            counts: walk.counts,
        };
        match mark.difference(&found) {
            None => Ok(()),
            Some(difference) => Err(format!(
                "partition {partition}, after {} batches: {difference} in the export",
                mark.batches
            )),
        }
    }

    fn end(&mut self, tail: Tail) -> Result<(), String> {
        let Report { batches, rows, .. } = self.report;
        if (tail.batches, tail.rows) != (batches, rows) {
            return Err(format!(
                "the end says {} batches and {} rows, there were {batches} and {rows}",
                tail.batches, tail.rows
            ));
        }
        if self.lines.is_over()? {
            Ok(())
        } else {
            Err("there is more after the end".into())
        }
    }

    /// Every mark of the checkpoint must have been passed, and every partition be marked that was there.
    fn arrive(&mut self) {
        for (partition, walk) in &self.walks {
            let surely = Some(self.checkpoint.surely_marked_before());
            if walk.begun_at < surely && self.checkpoint.mark(*partition).is_none() {
                let place = format!("partition {partition}");
                self.report.find("export", place, UNMARKED.into());
            }
        }
        for Mark {
            partition, batches, ..
        } in &self.checkpoint.partitions
        {
            let walked = self.walks.get(partition).map_or(0, |walk| walk.next_batch);
            if walked < *batches {
                self.report.find(
                    "export",
                    format!("partition {partition}, batch {walked}"),
                    format!(
                        "the export ends here, the checkpoint was made after {batches} batches"
                    ),
                );
            }
        }
    }
}

struct Lines<'a, I> {
    input: &'a mut I,
    /// Of the line that was read last, from 1.
    number: u64,
    buffer: Vec<u8>,
    written: Vec<u8>,
}

impl<I: BufRead> Lines<'_, I> {
    fn next(&mut self) -> Result<Line, String> {
        self.number += 1;
        self.buffer.clear();
        let mut line = self.input.by_ref().take(LINE_BYTES_MAX);
        let read = line.read_until(b'\n', &mut self.buffer);
        read.map_err(|error| format!("reading: {error}"))?;
        if self.buffer.last() != Some(&b'\n') {
            return Err("the file ends before its end line: it is truncated".into());
        }
        let is_frame = FRAMES.iter().any(|frame| self.buffer.starts_with(frame));
        let line = if is_frame {
            serde_json::from_slice(&self.buffer)
        } else {
            serde_json::from_slice(&self.buffer).map(Line::Row)
        };
        let line = line.map_err(|error| format!("not a line of an export: {error}"))?;
        self.check_written(&line)?;
        Ok(line)
    }

    /// The line must be as it was written: what else is in it would be in no chain.
    fn check_written(&mut self, line: &Line) -> Result<(), String> {
        self.written.clear();
        let written = match line {
            Line::Row(row) => write_line(&mut self.written, row),
            frame => write_line(&mut self.written, frame),
        };
        if written.is_ok() && self.written == self.buffer {
            Ok(())
        } else {
            Err("the line has more in it than an export writes, or in another form".into())
        }
    }

    fn is_over(&mut self) -> Result<bool, String> {
        let rest = self.input.fill_buf();
        Ok(rest
            .map_err(|error| format!("reading: {error}"))?
            .is_empty())
    }
}
