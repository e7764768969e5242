//! Reads the rows of some batches in order of `seq`.

use std::collections::VecDeque;
use std::ops::Range;

use sqlx::PgConnection;

use crate::store::Micros;
use crate::verify::compare::{Outcome, Stored};
use crate::verify::row::{LedgerRow, RawRow, ResolutionRow, Row};

/// The rows of some batches, by `seq`, from the tables that may hold them.
pub(super) struct Rows {
    ledger: VecDeque<LedgerRow>,
    refused: VecDeque<RawRow>,
    parked: VecDeque<RawRow>,
    resolutions: VecDeque<ResolutionRow>,
}

impl Rows {
    pub(super) async fn read(
        connection: &mut PgConnection,
        partition: i32,
        seqs: Range<i64>,
    ) -> Result<Self, sqlx::Error> {
        let (first_seq, next_seq) = (seqs.start, seqs.end);
        let ledger = sqlx::query_as!(
            LedgerRow,
            r#"select seq, log_offset, amount, occurred_at as "occurred_at: Micros",
                 recorded_at as "recorded_at: Micros", verdict, id, digest, currency, debit_account,
                 credit_account, kind, source, reference, metadata::text as metadata
             from millrace.ledger
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(&mut *connection)
        .await?;
        let refused = sqlx::query_as!(
            RawRow,
            r#"select seq, log_offset, reason, detail, recorded_at as "recorded_at: Micros",
                 record_timestamp, key, value, headers, id, debit_account, credit_account, amount,
                 currency, occurred_at as "occurred_at: Micros"
             from millrace.refused
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(&mut *connection)
        .await?;
        let parked = sqlx::query_as!(
            RawRow,
            r#"select seq, log_offset, reason, detail, recorded_at as "recorded_at: Micros",
                 record_timestamp, key, value, headers, id, null::text as debit_account,
                 null::text as credit_account, null::bigint as amount, null::text as currency,
                 null::timestamptz as "occurred_at: Micros"
             from millrace.parked
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(&mut *connection)
        .await?;
        let resolutions = sqlx::query_as!(
            ResolutionRow,
            r#"select seq, parked_seq, resolution, reason, operator,
                 recorded_at as "recorded_at: Micros"
             from millrace.parked_resolutions
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(connection)
        .await?;
        Ok(Self {
            ledger: ledger.into(),
            refused: refused.into(),
            parked: parked.into(),
            resolutions: resolutions.into(),
        })
    }

    /// Every row must have been added: what is left has a `seq` of another row.
    pub(super) fn finish(self) -> Result<(), String> {
        match self
            .fronts()
            .into_iter()
            .find_map(|(t, seq)| Some((t, seq?)))
        {
            None => Ok(()),
            Some((table, seq)) => Err(format!("{table} has a second row with seq {seq}")),
        }
    }

    /// The rows of these seqs that stand for a record of the log, by offset.
    pub(super) fn stored(&self, seqs: &Range<i64>) -> Vec<Stored<'_>> {
        let ledger = within(&self.ledger, seqs, |row| row.seq).map(|row| Stored {
            seq: row.seq,
            offset: row.log_offset,
            outcome: Outcome::Bound {
                id: row.id,
                digest: &row.digest,
            },
        });
        let refused = within(&self.refused, seqs, |row| row.seq).map(|row| row.stored("refused"));
        let parked = within(&self.parked, seqs, |row| row.seq).map(|row| row.stored("parked"));
        let mut stored: Vec<_> = ledger.chain(refused).chain(parked).collect();
        stored.sort_unstable_by_key(|row| (row.offset, row.seq));
        stored
    }

    /// Takes out the row with this `seq`, of which there must be one.
    pub(super) fn take(&mut self, seq: i64) -> Result<Row, String> {
        let fronts = self.fronts();
        let mut at = fronts
            .iter()
            .filter(|(_, front)| *front <= Some(seq) && front.is_some());
        match (at.next(), at.next()) {
            (None, _) => return Err("no table has the row".into()),
            (Some((one, _)), Some((other, _))) => {
                return Err(format!("both {one} and {other} have the row"));
            }
            (Some((table, Some(front))), None) if *front < seq => {
                return Err(format!("{table} has a second row with seq {front}"));
            }
            _ => {}
        }
        let ledger = self.ledger.pop_front_if(|row| row.seq == seq);
        let ledger = ledger.map(|row| Row::Ledger(Box::new(row)));
        let mut refused = || {
            Some(Row::Refused(Box::new(
                self.refused.pop_front_if(|r| r.seq == seq)?,
            )))
        };
        let mut parked = || {
            Some(Row::Parked(Box::new(
                self.parked.pop_front_if(|r| r.seq == seq)?,
            )))
        };
        let mut resolution = || {
            Some(Row::Resolution(
                self.resolutions.pop_front_if(|r| r.seq == seq)?,
            ))
        };
        let row = ledger
            .or_else(&mut refused)
            .or_else(&mut parked)
            .or_else(&mut resolution);
        row.ok_or_else(|| "no table has the row".into())
    }

    /// The `seq` of each table's next row.
    fn fronts(&self) -> [(&'static str, Option<i64>); 4] {
        [
            ("ledger", self.ledger.front().map(|row| row.seq)),
            ("refused", self.refused.front().map(|row| row.seq)),
            ("parked", self.parked.front().map(|row| row.seq)),
            (
                "parked_resolutions",
                self.resolutions.front().map(|row| row.seq),
            ),
        ]
    }
}

fn within<'r, R>(
    rows: &'r VecDeque<R>,
    seqs: &Range<i64>,
    seq: impl Fn(&R) -> i64,
) -> impl Iterator<Item = &'r R> {
    let start = rows.partition_point(|row| seq(row) < seqs.start);
    let end = rows.partition_point(|row| seq(row) < seqs.end);
    rows.range(start..end.max(start))
}
