//! Records as they came from the log, and the batch that is applied in one database transaction.
//!
//! The bytes of a batch lie in one buffer that is reused; a record holds places in it.

use std::ops::Range as Indices;

use millrace_schemas::ContentType;

/// The most records in a batch. There is no waiting for it to fill: a lane that keeps up applies what is there, and
/// one that is behind gets large batches, in which more records of the same slice meet: each costs a third less in one
/// of 20,000 than in one of 5,000, and takes nearly 2 kB of the lane's memory until it is committed.
pub const BATCH_RECORDS_MAX: usize = 20_000;

/// The bytes after which no further record is taken into a batch. One record may go beyond.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A place in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

/// One record of the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// The partition it came from.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, as the broker has it.
    pub timestamp: Option<i64>,
    /// What the headers say of the value.
    pub content_type: ContentType,
    key: Option<Span>,
    value: Option<Span>,
    headers: Span,
}

/// A record's parts as the log gives them.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a, H> {
    /// The partition it came from.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, as the broker has it.
    pub timestamp: Option<i64>,
    /// The raw key.
    pub key: Option<&'a [u8]>,
    /// The raw value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values in order.
    pub headers: H,
}

/// What was read from the log and not yet applied.
#[derive(Debug, Default)]
pub struct Intake {
    bytes: Vec<u8>,
    records: Vec<Record>,
    ends: Vec<(i32, i64)>,
}

impl Intake {
    /// Copies a record in.
    pub fn push<'a>(
        &mut self,
        incoming: Incoming<'a, impl Iterator<Item = (&'a str, Option<&'a [u8]>)>>,
    ) {
        let key = incoming.key.map(|key| self.copy(key));
        let value = incoming.value.map(|value| self.copy(value));
        let start = self.bytes.len();
        let mut content_type = ContentType::Avro;
        for (name, value) in incoming.headers {
            if name.eq_ignore_ascii_case(ContentType::HEADER) {
                content_type = ContentType::from_header(value.unwrap_or_default());
            }
            self.copy_length(Some(name.len()));
            self.copy(name.as_bytes());
            self.copy_length(value.map(<[u8]>::len));
            self.copy(value.unwrap_or_default());
        }
        self.records.push(Record {
            partition: incoming.partition,
            offset: incoming.offset,
            timestamp: incoming.timestamp,
            content_type,
            key,
            value,
            headers: Span {
                start,
                end: self.bytes.len(),
            },
        });
    }

    /// Notes that everything before `end`, the partition's end, has been handed out.
    pub fn push_end(&mut self, partition: i32, end: i64) {
        self.ends.push((partition, end));
    }

    /// Whether no further record should be added before the batch is applied.
    pub fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.ends.is_empty()
    }

    /// The partitions whose end was reached, with the end, once for each time.
    pub fn take_ends(&mut self) -> Vec<(i32, i64)> {
        std::mem::take(&mut self.ends)
    }

    /// Keeps the records that `keep` wants, in their order; it gets each with its key and value.
    pub fn retain(&mut self, mut keep: impl FnMut(&Record, Option<&[u8]>, Option<&[u8]>) -> bool) {
        let bytes = &self.bytes;
        let part = |span: Option<Span>| span.map(|span| &bytes[span.start..span.end]);
        self.records
            .retain(|record| keep(record, part(record.key), part(record.value)));
    }

    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.ends.clear();
    }

    /// The records by partition and offset, to be applied as the given ranges (sorted by partition).
    pub fn batch(&mut self, spans: impl Iterator<Item = LogRange>) -> Batch<'_> {
        self.records.sort_by_key(|record| record.partition);
        let mut rest = 0;
        let slices = spans
            .map(|log| {
                let start = rest;
                rest += self.records[start..]
                    .iter()
                    .take_while(|record| record.partition == log.partition)
                    .count();
                Slice {
                    log,
                    records: start..rest,
                }
            })
            .collect();
        Batch {
            bytes: &self.bytes,
            records: &self.records,
            slices,
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span {
            start,
            end: self.bytes.len(),
        }
    }

    fn copy_length(&mut self, length: Option<usize>) {
        // Kafka's own lengths are signed 32-bit numbers, with -1 for null.
        let length = length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX));
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }
}

/// A range `[from, next)` of one partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The partition.
    pub partition: i32,
    /// Of the position that the range begins at.
    pub incarnation: i32,
    /// The first offset of the range: where the last one ended.
    pub from: i64,
    /// The offset after the range.
    pub next: i64,
}

/// A range of the log and its records. Offsets without a record are holes.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Where in the log.
    pub log: LogRange,
    records: Indices<usize>,
}

/// What one database transaction applies: at most one range per partition, ascending.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    records: &'a [Record],
    slices: Vec<Slice>,
}

impl<'a> Batch<'a> {
    /// The ranges, by partition.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The records of one range in order.
    pub fn records(&self, slice: &Slice) -> &'a [Record] {
        &self.records[slice.records.clone()]
    }

    /// All partitions, ascending.
    pub fn partitions(&self) -> Vec<i32> {
        self.slices
            .iter()
            .map(|slice| slice.log.partition)
            .collect()
    }

    /// Whether any of these partitions is among them.
    pub fn shares_any(&self, partitions: &[i32]) -> bool {
        let mut own = self.slices.iter().map(|slice| slice.log.partition);
        own.any(|partition| partitions.contains(&partition))
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.records.len()).sum()
    }

    /// Whether there is nothing but holes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw key.
    pub fn key(&self, record: &Record) -> Option<&'a [u8]> {
        record.key.map(|span| &self.bytes[span.start..span.end])
    }

    /// The raw value.
    pub fn value(&self, record: &Record) -> Option<&'a [u8]> {
        record.value.map(|span| &self.bytes[span.start..span.end])
    }

    /// The headers: for each one, 4 bytes of length and the name, 4 bytes of length (-1: null) and
    /// the value; lengths are big-endian.
    pub fn headers(&self, record: &Record) -> &'a [u8] {
        &self.bytes[record.headers.start..record.headers.end]
    }

    /// The same as a batch for each partition, ascending.
    pub fn by_partition(self) -> Vec<Self> {
        let (bytes, records) = (self.bytes, self.records);
        let slices = self.slices.into_iter();
        let part = |slice| Self {
            bytes,
            records,
            slices: vec![slice],
        };
        slices.map(part).collect()
    }

    /// The first `count` records and the rest, which begins where the first part ends. `count` is
    /// at least 1 and less than [`Batch::len`].
    pub fn split(self, count: usize) -> (Self, Self) {
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut left = count;
        for slice in self.slices {
            let here = left.min(slice.records.len());
            left -= here;
            if here == slice.records.len() {
                front.push(slice);
            } else if here == 0 {
                back.push(slice);
            } else {
                let cut = slice.records.start + here;
                let next = self.records[cut].offset;
                let Slice { log, records } = slice;
                front.push(Slice {
                    log: LogRange { next, ..log },
                    records: records.start..cut,
                });
                back.push(Slice {
                    log: LogRange { from: next, ..log },
                    records: cut..records.end,
                });
            }
        }
        let part = |slices| Batch {
            bytes: self.bytes,
            records: self.records,
            slices,
        };
        (part(front), part(back))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Header = (&'static str, Option<&'static [u8]>);

    fn incoming(partition: i32, offset: i64) -> Incoming<'static, std::iter::Empty<Header>> {
        Incoming {
            partition,
            offset,
            timestamp: None,
            key: Some(b"k"),
            value: Some(b"v"),
            headers: std::iter::empty(),
        }
    }

    #[test]
    fn bytes_and_headers_come_back() {
        let mut intake = Intake::default();
        let headers: [(&str, Option<&[u8]>); 2] =
            [("Content-Type", Some(b"application/json")), ("x", None)];
        let record = Incoming {
            partition: 3,
            offset: 7,
            timestamp: Some(1),
            key: None,
            value: Some(b"value"),
            headers: headers.into_iter(),
        };
        intake.push(record);
        let batch = intake.batch(
            [LogRange {
                partition: 3,
                incarnation: 1,
                from: 7,
                next: 8,
            }]
            .into_iter(),
        );
        let record = &batch.records(&batch.slices()[0])[0];
        assert_eq!(
            (batch.key(record), batch.value(record)),
            (None, Some(&b"value"[..]))
        );
        assert_eq!(record.content_type, ContentType::Json);
        assert_eq!(
            batch.headers(record),
            b"\0\0\0\x0cContent-Type\0\0\0\x10application/json\0\0\0\x01x\xff\xff\xff\xff"
        );
    }

    proptest! {
        /// However a batch is split, its parts cover the same ranges and records, in order.
        #[test]
        fn parts_cover_the_whole(
            records in prop::collection::vec((0i32..3, 1i64..4), 2..40),
            at in any::<prop::sample::Index>(),
        ) {
            let mut next = [0i64; 3];
            let mut intake = Intake::default();
            for (partition, step) in records {
                let place = usize::try_from(partition).unwrap();
                next[place] += step;
                intake.push(incoming(partition, next[place] - 1));
            }
            let ranges = (0i32..3).zip(next).map(|(partition, next)| LogRange { partition, incarnation: 1, from: 0, next: next + 1 });
            let batch = intake.batch(ranges.filter(|range| range.next > 1));
            let offsets = |batch: &Batch<'_>| -> Vec<_> {
                batch.slices().iter().flat_map(|s| batch.records(s)).map(|r| (r.partition, r.offset)).collect()
            };
            let whole = offsets(&batch);
            let ends: Vec<_> = batch.slices().iter().map(|s| s.log).collect();
            let count = 1 + at.index(batch.len() - 1);
            let (front, back) = batch.split(count);
            prop_assert_eq!(front.len(), count);
            prop_assert_eq!([offsets(&front), offsets(&back)].concat(), whole);
            let mut covered: Vec<LogRange> = Vec::new();
            for slice in front.slices().iter().chain(back.slices()) {
                match covered.last_mut() {
                    Some(last) if last.partition == slice.log.partition => {
                        prop_assert_eq!(last.next, slice.log.from);
                        last.next = slice.log.next;
                    }
                    _ => covered.push(slice.log),
                }
            }
            prop_assert_eq!(covered, ends);
        }
    }
}
