//! The rows that the proof reads, and what each must be by itself.

use std::collections::VecDeque;

use millrace_rules::{Reason, Verdict};
use millrace_schemas::{Transaction, Wire};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::chain::{self, Chain, Numbers};
use crate::store::Micros;
use crate::verify::Walk;

/// How many rows are in memory at a time.
const ROWS_MAX: i64 = 20_000;

/// A row of `batches`.
pub(super) struct Batch {
    pub(super) numbers: Numbers,
    pub(super) chain_head: Vec<u8>,
}

/// The next batches, together at most [`ROWS_MAX`] rows, at least one batch.
pub(super) async fn read_batches(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<Vec<Batch>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select partition, batch, incarnation, from_offset, next_offset, first_seq, next_seq,
             posted, duplicate, rejected, refused, parked, discarded, skipped,
             recorded_at as "recorded_at: Micros", chain_head
         from millrace.batches
         where partition = $1 and batch >= $2 and batch < $2 + 1000
             and (batch = $2 or next_seq <= $3)
         order by batch"#,
        walk.partition,
        walk.next_batch,
        walk.next_seq + ROWS_MAX
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Batch {
            numbers: Numbers {
                partition: row.partition,
                batch: row.batch,
                incarnation: row.incarnation,
                from_offset: row.from_offset,
                next_offset: row.next_offset,
                first_seq: row.first_seq,
                next_seq: row.next_seq,
                posted: row.posted,
                duplicate: row.duplicate,
                rejected: row.rejected,
                refused: row.refused,
                parked: row.parked,
                discarded: row.discarded,
                skipped: row.skipped,
                recorded_at: row.recorded_at.0,
            },
            chain_head: row.chain_head,
        })
        .collect())
}

/// The rows of some batches, by `seq`, from the tables that may hold them.
pub(super) struct Rows {
    ledger: VecDeque<LedgerRow>,
    refused: VecDeque<RawRow>,
    parked: VecDeque<RawRow>,
    resolutions: VecDeque<ResolutionRow>,
}

struct LedgerRow {
    seq: i64,
    log_offset: i64,
    amount: i64,
    occurred_at: Micros,
    recorded_at: Micros,
    verdict: i16,
    id: Uuid,
    digest: Vec<u8>,
    currency: String,
    debit_account: String,
    credit_account: String,
    kind: String,
    source: String,
    reference: Option<String>,
    metadata: Option<String>,
}

struct ResolutionRow {
    seq: i64,
    parked_seq: i64,
    resolution: String,
    reason: String,
    operator: String,
    recorded_at: Micros,
}

/// A row of `refused`, or of `parked`, which shows nothing of its record but the id.
struct RawRow {
    seq: i64,
    log_offset: i64,
    reason: i16,
    detail: String,
    recorded_at: Micros,
    record_timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
    id: Option<Uuid>,
    debit_account: Option<String>,
    credit_account: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
    occurred_at: Option<Micros>,
}

impl Rows {
    pub(super) async fn read(
        connection: &mut PgConnection,
        walk: &Walk,
        next_seq: i64,
    ) -> Result<Self, sqlx::Error> {
        let (partition, first_seq) = (walk.partition, walk.next_seq);
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
        let left = [
            ("ledger", self.ledger.front().map(|row| row.seq)),
            ("refused", self.refused.front().map(|row| row.seq)),
            ("parked", self.parked.front().map(|row| row.seq)),
            (
                "parked_resolutions",
                self.resolutions.front().map(|row| row.seq),
            ),
        ];
        match left.into_iter().find_map(|(t, seq)| Some((t, seq?))) {
            None => Ok(()),
            Some((table, seq)) => Err(format!("{table} has a second row with seq {seq}")),
        }
    }

    /// Adds the row with this `seq` to the chain and the counts.
    pub(super) fn add(
        &mut self,
        seq: i64,
        chain: &mut Chain,
        counted: &mut Numbers,
    ) -> Result<(), String> {
        if let Some(row) = self.ledger.pop_front_if(|row| row.seq == seq) {
            row.check()?;
            chain.ledger(&row.for_chain());
            match row.verdict()? {
                Verdict::Posted => counted.posted += 1,
                _ => counted.rejected += 1,
            }
        } else if let Some(row) = self.refused.pop_front_if(|row| row.seq == seq) {
            chain.refused(&row.for_chain(), &row.readable());
            counted.refused += 1;
        } else if let Some(row) = self.parked.pop_front_if(|row| row.seq == seq) {
            chain.parked(&row.for_chain(), row.id.map(Uuid::into_bytes));
            counted.parked += 1;
        } else if let Some(row) = self.resolutions.pop_front_if(|row| row.seq == seq) {
            row.check()?;
            chain.resolution(&row.for_chain());
            counted.parked -= 1;
            counted.discarded += i32::from(row.is_discarded());
        } else {
            return Err("no table has the row".into());
        }
        Ok(())
    }
}

impl LedgerRow {
    fn verdict(&self) -> Result<Verdict, String> {
        match self.verdict {
            0 => Ok(Verdict::Posted),
            code => Reason::from_code(code)
                .filter(|reason| reason.binds_id())
                .map(Verdict::Rejected)
                .ok_or_else(|| {
                    format!("the row's verdict is {code}, which is none of the ledger's")
                }),
        }
    }

    /// The stored digest must be that of the stored content.
    fn check(&self) -> Result<(), String> {
        let metadata = match &self.metadata {
            None => Ok(millrace_schemas::wire::Metadata::default()),
            Some(text) => serde_json::from_str(text),
        };
        let wire = Wire {
            id: self.id.to_string().into(),
            kind: self.kind.as_str().into(),
            debit_account: self.debit_account.as_str().into(),
            credit_account: self.credit_account.as_str().into(),
            amount: self.amount,
            currency: self.currency.as_str().into(),
            occurred_at: self.occurred_at.0,
            reference: self.reference.as_deref().unwrap_or_default().into(),
            source: self.source.as_str().into(),
            metadata: metadata.map_err(|error| format!("the row's metadata: {error}"))?,
            misread: None,
        };
        let transaction = Transaction::try_from(wire)
            .map_err(|(_, invalid)| format!("the row is no valid transaction: {invalid}"))?;
        if transaction.digest()[..] == self.digest[..] {
            Ok(())
        } else {
            Err(format!(
                "the content of transaction {} is not what its digest says",
                self.id
            ))
        }
    }

    fn for_chain(&self) -> chain::LedgerRow<'_> {
        chain::LedgerRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            verdict: self.verdict,
            digest: &self.digest,
        }
    }
}

impl ResolutionRow {
    fn is_discarded(&self) -> bool {
        self.resolution == "discarded"
    }

    fn check(&self) -> Result<(), String> {
        if self.parked_seq < self.seq {
            Ok(())
        } else {
            Err(format!("the row resolves a later one, {}", self.parked_seq))
        }
    }

    fn for_chain(&self) -> chain::ResolutionRow<'_> {
        chain::ResolutionRow {
            seq: self.seq,
            parked_seq: self.parked_seq,
            recorded_at: self.recorded_at.0,
            is_discarded: self.is_discarded(),
            reason: &self.reason,
            operator: &self.operator,
        }
    }
}

impl RawRow {
    fn for_chain(&self) -> chain::RawRow<'_> {
        chain::RawRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            reason: self.reason,
            detail: &self.detail,
            record_timestamp: self.record_timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    fn readable(&self) -> chain::Readable<'_> {
        chain::Readable {
            id: self.id.map(Uuid::into_bytes),
            debit_account: self.debit_account.as_deref(),
            credit_account: self.credit_account.as_deref(),
            amount: self.amount,
            currency: self.currency.as_deref(),
            occurred_at: self.occurred_at.map(|at| at.0),
        }
    }
}

/// Rows that no batch accounts for: beyond the end of their partition, or of a partition without a
/// position. Gives (table, partition, seq or batch).
pub(super) async fn unaccounted(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(String, i32, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select table_name as "table_name!", partition as "partition!", number as "number!" from (
               select 'ledger' as table_name, r.partition, r.seq as number
               from millrace.ledger r left join millrace.positions p using (partition)
               where r.seq >= coalesce(p.next_seq, 0) or r.seq < 0
               union all
               select 'refused', r.partition, r.seq
               from millrace.refused r left join millrace.positions p using (partition)
               where r.seq >= coalesce(p.next_seq, 0) or r.seq < 0
               union all
               select 'parked', r.partition, r.seq
               from millrace.parked r left join millrace.positions p using (partition)
               where r.seq >= coalesce(p.next_seq, 0) or r.seq < 0
               union all
               select 'parked_resolutions', r.partition, r.seq
               from millrace.parked_resolutions r left join millrace.positions p using (partition)
               where r.seq >= coalesce(p.next_seq, 0) or r.seq < 0
               union all
               select 'batches', r.partition, r.batch
               from millrace.batches r left join millrace.positions p using (partition)
               where r.batch >= coalesce(p.next_batch, 0) or r.batch < 0
           ) rows
           order by 2, 3, 1
           limit $1"#,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.table_name, row.partition, row.number))
        .collect())
}
