//! Records of the log against the rows that stand for them. Pure.

use std::collections::HashMap;
use std::ops::Range;

use uuid::Uuid;

use crate::kafka::reader::LogRecord;

/// A row that stands for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    pub(super) seq: i64,
    pub(super) offset: i64,
    pub(super) outcome: Outcome<'a>,
}

/// What the row keeps of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// A row of `ledger`.
    Bound { id: Uuid, digest: &'a [u8] },
    /// A row of `refused` or `parked`.
    Kept {
        table: &'static str,
        timestamp: Option<i64>,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [u8],
    },
}

/// Something wrong at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) offset: i64,
    pub(super) detail: String,
}

/// A record without a row: it must be a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unstored {
    pub(super) offset: i64,
    pub(super) id: Uuid,
    pub(super) digest: [u8; 32],
    /// The first `seq` of its batch and the one after the last.
    pub(super) seqs: (i64, i64),
}

/// Both sides of one batch, by offset. Gives the records without a row; what differs is added.
pub(super) fn merge(
    records: &[LogRecord],
    stored: &[Stored<'_>],
    seqs: &Range<i64>,
    differences: &mut Vec<Difference>,
) -> Vec<Unstored> {
    let mut unstored = Vec::new();
    let mut rows = stored.iter().peekable();
    let missing = |row: &Stored<'_>| Difference {
        offset: row.offset,
        detail: format!("there is no record for the row with seq {}", row.seq),
    };
    for record in records {
        while let Some(row) = rows.next_if(|row| row.offset < record.offset) {
            differences.push(missing(row));
        }
        if let Some(row) = rows.next_if(|row| row.offset == record.offset) {
            if let Err(detail) = row.fits(record) {
                let offset = record.offset;
                differences.push(Difference { offset, detail });
            }
            continue;
        }
        match Unstored::of(record, seqs) {
            Ok(record) => unstored.push(record),
            Err(difference) => differences.push(difference),
        }
    }
    differences.extend(rows.map(missing));
    unstored
}

/// What was replayed, each with the `seq` of its resolution: the row of what became of it has the next
/// one. Gives the records without a row, like [`merge`].
pub(super) fn pair(
    replayed: &[(i64, LogRecord)],
    stored: &[Stored<'_>],
    seqs: &Range<i64>,
    differences: &mut Vec<Difference>,
) -> Vec<Unstored> {
    let mut rows: HashMap<i64, &Stored<'_>> = stored.iter().map(|row| (row.seq, row)).collect();
    let mut unstored = Vec::new();
    for (seq, record) in replayed {
        let offset = record.offset;
        match rows.remove(&(seq + 1)) {
            Some(row) if row.offset != offset => differences.push(Difference {
                offset,
                detail: format!("its row (seq {}) says offset {}", row.seq, row.offset),
            }),
            Some(row) => {
                let fit = row.fits(record).err();
                differences.extend(fit.map(|detail| Difference { offset, detail }));
            }
            None => match Unstored::of(record, seqs) {
                Ok(record) => unstored.push(record),
                Err(difference) => differences.push(difference),
            },
        }
    }
    let mut left: Vec<_> = rows.into_values().collect();
    left.sort_unstable_by_key(|row| row.seq);
    differences.extend(left.into_iter().map(|row| Difference {
        offset: row.offset,
        detail: format!("nothing was replayed to the row with seq {}", row.seq),
    }));
    unstored
}

impl Unstored {
    fn of(record: &LogRecord, seqs: &Range<i64>) -> Result<Self, Difference> {
        let offset = record.offset;
        let Some((id, digest)) = record.content else {
            let detail = "the record is no valid transaction, and no row has it".into();
            return Err(Difference { offset, detail });
        };
        let seqs = (seqs.start, seqs.end);
        Ok(Self {
            offset,
            id,
            digest,
            seqs,
        })
    }
}

impl Stored<'_> {
    fn fits(&self, record: &LogRecord) -> Result<(), String> {
        let seq = self.seq;
        match self.outcome {
            Outcome::Bound { id, digest } => match record.content {
                Some((_, found)) if found[..] == *digest => Ok(()),
                Some((found, _)) if found == id => Err(format!(
                    "transaction {id} has another content in the log than in the ledger (seq {seq})"
                )),
                Some((found, _)) => Err(format!(
                    "the record is transaction {found}, its row in the ledger (seq {seq}) is {id}"
                )),
                None => Err(format!(
                    "the record is no valid transaction, its row in the ledger (seq {seq}) is {id}"
                )),
            },
            Outcome::Kept {
                table,
                timestamp,
                key,
                value,
                headers,
            } => {
                let parts = [
                    ("timestamp", record.timestamp == timestamp),
                    ("key", record.key.as_deref() == key),
                    ("value", record.value.as_deref() == value),
                    ("headers", record.headers == headers),
                ];
                match parts.into_iter().find(|(_, equal)| !equal) {
                    None => Ok(()),
                    Some((part, _)) => Err(format!(
                        "the record's {part} is not what the row of {table} (seq {seq}) has"
                    )),
                }
            }
        }
    }
}

/// Where an id is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) partition: i32,
    pub(super) seq: i64,
    pub(super) offset: i64,
    pub(super) digest: Vec<u8>,
}

/// A record without a row must be known: its id bound before it, with the same content.
pub(super) fn check_known(
    partition: i32,
    record: &Unstored,
    bindings: &HashMap<Uuid, Binding>,
) -> Result<(), String> {
    let id = record.id;
    let Some(binding) = bindings.get(&id) else {
        return Err(format!(
            "transaction {id} is in no table: the record has no verdict"
        ));
    };
    let Binding { seq, offset, .. } = *binding;
    if binding.digest != record.digest {
        return Err(format!(
            "the record has no row; transaction {id} is bound with another content (partition {}, seq \
             {seq})",
            binding.partition
        ));
    }
    let (first_seq, next_seq) = record.seqs;
    let is_before = seq < first_seq || (seq < next_seq && offset < record.offset);
    if binding.partition != partition || is_before {
        Ok(())
    } else {
        Err(format!(
            "the record has no row; transaction {id} is bound only later (seq {seq}, offset {offset})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, id: u128) -> LogRecord {
        LogRecord {
            offset,
            timestamp: Some(1),
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: Vec::new(),
            content: (id > 0).then(|| (Uuid::from_u128(id), [id.to_le_bytes()[0]; 32])),
        }
    }

    fn bound(seq: i64, offset: i64, id: u128, digest: &[u8; 32]) -> Stored<'_> {
        Stored {
            seq,
            offset,
            outcome: Outcome::Bound {
                id: Uuid::from_u128(id),
                digest,
            },
        }
    }

    fn kept(offset: i64, value: Option<&[u8]>) -> Stored<'_> {
        Stored {
            seq: 9,
            offset,
            outcome: Outcome::Kept {
                table: "parked",
                timestamp: Some(1),
                key: Some(b"k"),
                value,
                headers: b"",
            },
        }
    }

    /// The offsets that differ and those without a row.
    fn offsets(records: &[LogRecord], stored: &[Stored<'_>]) -> (Vec<i64>, Vec<i64>) {
        let mut differences = Vec::new();
        let unstored = merge(records, stored, &(0..10), &mut differences);
        (
            differences.iter().map(|d| d.offset).collect(),
            unstored.iter().map(|u| u.offset).collect(),
        )
    }

    #[test]
    fn each_record_is_held_against_its_row() {
        let (one, two) = ([1; 32], [2; 32]);
        let records = [record(5, 1), record(7, 0), record(8, 2)];
        let rows = [
            bound(0, 5, 1, &one),
            kept(7, Some(b"v")),
            bound(1, 8, 2, &two),
        ];
        assert_eq!(offsets(&records, &rows), (vec![], vec![]));
        // A row without a record, before, between and behind.
        for offset in [4, 6, 9] {
            let mut more = rows.to_vec();
            more.push(bound(3, offset, 9, &one));
            more.sort_by_key(|row| row.offset);
            assert_eq!(offsets(&records, &more), (vec![offset], vec![]));
        }
        // Records without a row: only a transaction can be a duplicate.
        assert_eq!(offsets(&records, &[]), (vec![7], vec![5, 8]));
        // Another content, another transaction, other bytes, none.
        assert_eq!(offsets(&records[..1], &[bound(0, 5, 1, &two)]).0, [5]);
        assert_eq!(offsets(&records[..1], &[bound(0, 5, 2, &two)]).0, [5]);
        assert_eq!(offsets(&records[1..2], &[bound(0, 7, 2, &two)]).0, [7]);
        assert_eq!(offsets(&records[1..2], &[kept(7, Some(b"w"))]).0, [7]);
        assert_eq!(offsets(&records[1..2], &[kept(7, None)]).0, [7]);
        // Two rows for one record.
        let twice = [bound(0, 5, 1, &one), bound(1, 5, 1, &one)];
        assert_eq!(offsets(&records[..1], &twice).0, [5]);
    }

    #[test]
    fn what_was_replayed_is_held_against_the_row_after_its_resolution() {
        let (one, two) = ([1; 32], [2; 32]);
        let replayed = [(0, record(8, 1)), (2, record(5, 2)), (3, record(8, 2))];
        let offsets = |stored: &[Stored<'_>]| {
            let mut differences = Vec::new();
            let unstored = pair(&replayed, stored, &(0..5), &mut differences);
            let offsets: Vec<_> = differences.iter().map(|d| d.offset).collect();
            (offsets, unstored.len())
        };
        let rows = [bound(1, 8, 1, &one), bound(4, 8, 2, &two)];
        assert_eq!(offsets(&rows), (vec![], 1));
        assert_eq!(offsets(&[bound(1, 8, 1, &two), rows[1]]), (vec![8], 1));
        assert_eq!(offsets(&[bound(1, 7, 1, &one), rows[1]]), (vec![8], 1));
        assert_eq!(offsets(&[rows[0]]), (vec![], 2));
        assert_eq!(
            offsets(&[rows[0], rows[1], bound(9, 3, 1, &one)]),
            (vec![3], 1)
        );
    }

    #[test]
    fn a_record_without_a_row_must_be_known_before() {
        let unstored = Unstored {
            offset: 50,
            id: Uuid::from_u128(1),
            digest: [1; 32],
            seqs: (10, 20),
        };
        let known = |partition, seq, offset, digest: u8| {
            let binding = Binding {
                partition,
                seq,
                offset,
                digest: vec![digest; 32],
            };
            check_known(0, &unstored, &HashMap::from([(unstored.id, binding)])).is_ok()
        };
        // In an earlier batch, also when it was parked before; in the same batch; in another partition.
        assert!(
            known(0, 9, 40, 1) && known(0, 9, 60, 1) && known(0, 15, 49, 1) && known(1, 99, 99, 1)
        );
        assert!(!known(0, 15, 51, 1) && !known(0, 20, 49, 1));
        assert!(!known(0, 9, 40, 2));
        assert!(check_known(0, &unstored, &HashMap::new()).is_err());
    }
}
