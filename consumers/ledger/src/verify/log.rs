//! The log itself, record by record, as far as it is retained.

use std::collections::{HashMap, VecDeque};

use millrace_schemas::ContentType;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::chain::{Numbers, anchor};
use crate::kafka::reader::{LogRecord, Read, Reader, Span};
use crate::parking::headers;
use crate::store::Served;
use crate::verify::batches::Batch;
use crate::verify::compare::{Binding, Difference, Unstored, check_known, merge, pair};
use crate::verify::rows::Rows;
use crate::verify::walk::{End, Start};
use crate::verify::{Error, Report};

/// What was read of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Records held against the tables.
    pub records: u64,
    /// Offsets below the positions that the log does not retain any more.
    pub gone: i64,
    /// Offsets from the positions to the log's ends: not yet applied.
    pub unapplied: i64,
    /// Offsets of earlier incarnations, which may have been those of another log.
    pub earlier: i64,
}

/// The log beside the walk.
pub(super) struct Log {
    reader: Reader,
    /// Partitions of the database without a position.
    absent: Vec<i32>,
    pending: VecDeque<LogRecord>,
    /// Whether the partition's last record was read.
    ended: bool,
    /// The offsets that can be compared.
    from: i64,
    next: i64,
    /// The last record before the position: its offset, timestamp and digest.
    last: Option<(i64, Option<i64>, [u8; 32])>,
}

impl Log {
    /// Begins to read what the walks will ask for, and then of which partitions there is no position.
    pub(super) fn new(mut reader: Reader, walks: &[(Start, End)], served: &Served) -> Self {
        let mut absent: Vec<_> = served.of(reader.topic().partitions).collect();
        absent.retain(|partition| walks.iter().all(|(_, end)| end.partition != *partition));
        let walked = walks.iter().map(|(start, end)| Span {
            partition: end.partition,
            from: start.log_from(end),
            next: end.position,
        });
        let bounds = absent.iter().map(|partition| Span {
            partition: *partition,
            from: 0,
            next: 0,
        });
        reader.start(walked.chain(bounds).collect());
        Self {
            reader,
            absent,
            pending: VecDeque::new(),
            ended: true,
            from: 0,
            next: 0,
            last: None,
        }
    }

    /// Begins a partition, to be compared from this offset on.
    pub(super) async fn begin(
        &mut self,
        connection: &mut PgConnection,
        end: &End,
        from: i64,
        report: &mut Report,
    ) -> Result<(), Error> {
        let Read::Bounds(bounds) = self.reader.next().await? else {
            return Err(Error::out_of_step());
        };
        (self.pending, self.ended, self.last) = (VecDeque::new(), false, None);
        self.from = from.max(bounds.start);
        self.next = end.position.min(bounds.end);
        if bounds.end < end.position {
            report.find(
                "log",
                format!("partition {}, offset {}", end.partition, bounds.end),
                format!(
                    "the log ends here, before the position {}: what was applied from there on is not in it",
                    end.position
                ),
            );
        }
        if bounds.start > end.position {
            find_lost(connection, end, bounds.start, report).await?;
        }
        if let Some(log) = &mut report.log {
            log.gone += bounds.start.min(end.position).saturating_sub(from).max(0);
            log.unapplied += (bounds.end - end.position).max(0);
        }
        Ok(())
    }

    /// Holds some batches and their rows against the log.
    pub(super) async fn compare(
        &mut self,
        connection: &mut PgConnection,
        end: &End,
        chunk: &[Batch],
        rows: &Rows,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut unstored = Vec::new();
        for Batch { numbers, .. } in chunk {
            if let Some(log) = &mut report.log
                && numbers.incarnation != end.incarnation
            {
                log.earlier += numbers.next_offset - numbers.from_offset;
            }
            let is_there = numbers.incarnation == end.incarnation
                && numbers.from_offset < numbers.next_offset
                && numbers.next_offset > self.from
                && numbers.next_offset <= self.next;
            if !is_there {
                continue;
            }
            let records = self.take(numbers.next_offset, report).await?;
            let seqs = numbers.first_seq..numbers.next_seq;
            let mut stored = rows.stored(&seqs);
            let is_whole = numbers.from_offset >= self.from;
            if !is_whole {
                stored.retain(|row| row.offset >= self.from);
            }
            let mut differences = Vec::new();
            let known = merge(&records, &stored, &seqs, &mut differences);
            if is_whole && differences.is_empty() {
                differences.extend(miscounted(numbers, records.len(), known.len()));
            }
            report.differ(end.partition, differences);
            unstored.extend(known);
        }
        check_all_known(connection, end.partition, &unstored, report).await?;
        Ok(())
    }

    /// The anchor must be the last applied record. Leaves what else there is of the partition.
    pub(super) async fn finish(&mut self, end: &End, report: &mut Report) -> Result<(), Error> {
        let is_read = self.next == end.position;
        let from = self.from;
        self.take(i64::MAX, report).await?;
        let stored = match (end.anchor_offset, &end.anchor_digest) {
            (Some(offset), Some(digest)) => Some((offset, end.anchor_timestamp, &digest[..])),
            _ => None,
        };
        let last = self
            .last
            .as_ref()
            .map(|(o, t, digest)| (*o, *t, &digest[..]));
        // A record that is not retained, or lies before what was read, cannot be looked at.
        let is_unknown = last.is_none() && stored.is_none_or(|(offset, ..)| offset < from);
        if is_read && !is_unknown && stored != last {
            let offset =
                |anchor: Option<(i64, Option<i64>, &[u8])>| anchor.map(|(offset, ..)| offset);
            report.find(
                "log",
                format!("partition {}, position {}", end.partition, end.position),
                format!(
                    "the anchor (offset {:?}) is not the last applied record of the log (offset {:?})",
                    offset(stored),
                    offset(last)
                ),
            );
        }
        Ok(())
    }

    /// After the last walk: what the log holds of partitions without a position. Right after the start no
    /// lane may have begun them; later each has one, unless nobody reads it or somebody has removed it.
    pub(super) async fn finish_absent(
        &mut self,
        connection: &mut PgConnection,
        report: &mut Report,
    ) -> Result<(), Error> {
        let is_late = sqlx::query_scalar!(
            r#"select exists (select from millrace.batches
                 where batch = 0 and recorded_at < now() - interval '1 minute') as "is_late!""#
        )
        .fetch_one(&mut *connection)
        .await?;
        for partition in std::mem::take(&mut self.absent) {
            let Read::Bounds(bounds) = self.reader.next().await? else {
                return Err(Error::out_of_step());
            };
            let Read::End = self.reader.next().await? else {
                return Err(Error::out_of_step());
            };
            let offsets = bounds.end - bounds.start;
            if let Some(log) = &mut report.log {
                log.unapplied += offsets;
            }
            if offsets > 0 && is_late && !has_position(connection, partition).await? {
                let detail = format!(
                    "there is no position: none of the {offsets} offsets that the log holds is applied"
                );
                let place = format!("partition {partition}, offset {}", bounds.start);
                report.find("positions", place, detail);
            }
        }
        Ok(())
    }

    /// The records before `next` that were not taken before, in order.
    async fn take(&mut self, next: i64, report: &mut Report) -> Result<Vec<LogRecord>, Error> {
        let mut taken = Vec::new();
        loop {
            while let Some(record) = self.pending.pop_front_if(|record| record.offset < next) {
                taken.push(record);
            }
            if self.ended || !self.pending.is_empty() {
                break;
            }
            match self.reader.next().await? {
                Read::Records(records) => {
                    if let Some(last) = records.last() {
                        let digest = anchor(last.key.as_deref(), last.value.as_deref());
                        self.last = Some((last.offset, last.timestamp, digest));
                    }
                    if let Some(log) = &mut report.log {
                        log.records += records.len() as u64;
                    }
                    // What only has to be passed is not kept.
                    if next < i64::MAX {
                        self.pending.extend(records);
                    }
                }
                Read::GoneBefore(offset) => {
                    if let Some(log) = &mut report.log {
                        log.gone +=
                            offset - self.from.max(self.last.map_or(0, |(last, ..)| last + 1));
                    }
                    self.from = offset;
                    taken.retain(|record| record.offset >= offset);
                }
                Read::End => self.ended = true,
                Read::Bounds(_) => return Err(Error::out_of_step()),
            }
        }
        Ok(taken)
    }
}

/// Whether a lane has begun the partition by now.
async fn has_position(connection: &mut PgConnection, partition: i32) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from millrace.positions where partition = $1) as "has_position!""#,
        partition
    )
    .fetch_one(connection)
    .await
}

/// What the log does not retain any more must have been applied, or be given up by an operator. Retention
/// may have followed what was applied since the positions were read.
async fn find_lost(
    connection: &mut PgConnection,
    end: &End,
    log_start: i64,
    report: &mut Report,
) -> Result<(), Error> {
    let position = sqlx::query_scalar!(
        "select position from millrace.positions where partition = $1",
        end.partition
    )
    .fetch_optional(connection)
    .await?
    .unwrap_or(end.position);
    if position < log_start {
        report.find(
            "log",
            format!("partition {}, offset {position}", end.partition),
            format!(
                "the log begins at {log_start}: {} offsets were deleted before they were applied",
                log_start - position
            ),
        );
    }
    Ok(())
}

/// Whether the batch counts what has no row as the log shows it.
fn miscounted(numbers: &Numbers, records: usize, unstored: usize) -> Option<Difference> {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let skipped = numbers.next_offset - numbers.from_offset - count(records);
    let found = (count(unstored), skipped);
    let counted = (i64::from(numbers.duplicate), numbers.skipped);
    (found != counted).then(|| Difference {
        offset: numbers.from_offset,
        detail: format!(
            "batch {} counts (duplicate, skipped) as {counted:?}, the log has {found:?}",
            numbers.batch
        ),
    })
}

/// What batches without a range post, refuse or find known must be what they say was replayed: the
/// records as they were parked.
pub(super) async fn compare_replays(
    connection: &mut PgConnection,
    partition: i32,
    chunk: &[Batch],
    rows: &Rows,
    report: &mut Report,
) -> Result<(), Error> {
    let mut unstored = Vec::new();
    for Batch { numbers, .. } in chunk {
        let seqs = numbers.first_seq..numbers.next_seq;
        if numbers.from_offset < numbers.next_offset || seqs.is_empty() {
            continue;
        }
        let replayed = replayed(connection, partition, (seqs.start, seqs.end)).await?;
        let stored = rows.stored(&seqs);
        let mut differences = Vec::new();
        let known = pair(&replayed, &stored, &(seqs.end..seqs.end), &mut differences);
        if differences.is_empty() && i64::try_from(known.len()) != Ok(numbers.duplicate.into()) {
            differences.push(Difference {
                offset: numbers.from_offset,
                detail: format!(
                    "batch {} counts {} duplicates, of what was replayed {} have no row",
                    numbers.batch,
                    numbers.duplicate,
                    known.len()
                ),
            });
        }
        report.differ(partition, differences);
        unstored.extend(known);
    }
    check_all_known(connection, partition, &unstored, report).await
}

/// The parked records that were replayed with these seqs, as the log had them.
async fn replayed(
    connection: &mut PgConnection,
    partition: i32,
    (first_seq, next_seq): (i64, i64),
) -> Result<Vec<(i64, LogRecord)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select s.seq, p.log_offset, p.record_timestamp, p.key, p.value, p.headers
         from millrace.parked_resolutions s
         join millrace.parked p on p.partition = s.partition and p.seq = s.parked_seq
         where s.partition = $1 and s.seq >= $2 and s.seq < $3 and s.resolution = 'replayed'
         order by s.seq",
        partition,
        first_seq,
        next_seq
    )
    .fetch_all(connection)
    .await?;
    let records = rows.into_iter().map(|row| {
        let content_type = content_type(&row.headers);
        let record = LogRecord {
            offset: row.log_offset,
            timestamp: row.record_timestamp,
            content: LogRecord::content_of(row.value.as_deref(), content_type),
            key: row.key,
            value: row.value,
            headers: row.headers,
        };
        (row.seq, record)
    });
    Ok(records.collect())
}

/// What kept headers say of the value, as [`crate::record::Intake`] reads them.
fn content_type(kept: &[u8]) -> ContentType {
    headers(kept)
        .filter(|(name, _)| name.eq_ignore_ascii_case(ContentType::HEADER))
        .last()
        .map_or(ContentType::Avro, |(_, value)| {
            ContentType::from_header(value.unwrap_or_default())
        })
}

async fn check_all_known(
    connection: &mut PgConnection,
    partition: i32,
    unstored: &[Unstored],
    report: &mut Report,
) -> Result<(), Error> {
    if unstored.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = unstored.iter().map(|record| record.id).collect();
    let rows = sqlx::query!(
        "select id, partition, seq, log_offset, digest from millrace.ledger where id = any($1)",
        &ids
    )
    .fetch_all(connection)
    .await?;
    let bindings: HashMap<_, _> = rows
        .into_iter()
        .map(|row| {
            let binding = Binding {
                partition: row.partition,
                seq: row.seq,
                offset: row.log_offset,
                digest: row.digest,
            };
            (row.id, binding)
        })
        .collect();
    let differences = unstored.iter().filter_map(|record| {
        let detail = check_known(partition, record, &bindings).err()?;
        let offset = record.offset;
        Some(Difference { offset, detail })
    });
    report.differ(partition, differences.collect());
    Ok(())
}
