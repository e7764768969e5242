//! The rows of a small batch in one statement.
//!
//! COPY and slices by where they lie are the cheapest for each row, but they are seven round trips. A batch of a few
//! dozen rows, as there are many of a second when little comes in, costs more by its round trips than by its rows.

use sqlx::PgConnection;
use sqlx::error::DatabaseError;

use crate::pipeline::outcome::{LedgerRow, Outcome, Previous};
use crate::store::Micros;
use crate::store::error::{During, Error};
use crate::store::slices::elsewhere;

/// Beyond, COPY is cheaper.
const ROWS_MAX: usize = 256;

/// Whether the rows are for this statement. A slice is changed once in it.
pub(super) fn fits(outcome: &Outcome<'_>) -> bool {
    (1..=ROWS_MAX).contains(&outcome.ledger.len())
        && outcome.balances.iter().all(|delta| delta.round == 0)
}

/// Adds to the slices and writes the rows of the ledger.
///
/// # Errors
///
/// [`Error::Retry`] also when a row was refused and the error does not tell which table refused it.
#[expect(clippy::too_many_lines, reason = "one statement with many columns")]
pub(super) async fn write<'a>(
    connection: &mut PgConnection,
    outcome: &Outcome<'a>,
) -> Result<(), Error> {
    let (slices, rows) = (&outcome.balances, &outcome.ledger);
    let reference = |row: &LedgerRow<'a>| {
        let reference: &str = &row.transaction.reference;
        (!reference.is_empty()).then_some(reference)
    };
    let metadata = |row: &LedgerRow<'_>| {
        let metadata = &row.transaction.metadata;
        let text = || serde_json::to_string(metadata).expect("strings into memory do not fail");
        (!metadata.pairs().is_empty()).then(text)
    };
    let is_whole = sqlx::query_scalar!(
        r#"with d as materialized (
             select c.*, b.ctid as tid, b.last_seq as previous
             from unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::timestamptz[], $6::bigint[],
                 $7::bigint[], $8::bigint[])
                 with ordinality c(account, currency, partition, transactions, last_occurred_at, debits, credits,
                     last_seq, place)
             left join millrace.balances b on b.account = c.account and b.currency = c.currency
                 and b.partition = c.partition
         ), changed as (
             update millrace.balances b set
                 transactions = b.transactions + d.transactions,
                 last_occurred_at = greatest(b.last_occurred_at, d.last_occurred_at),
                 debits = b.debits + d.debits,
                 credits = b.credits + d.credits,
                 last_seq = d.last_seq
             from d where b.ctid = d.tid
             returning 1
         ), made as (
             insert into millrace.balances (account, currency, partition, transactions, last_occurred_at, debits,
                 credits, last_seq)
             select account, currency, partition, transactions, last_occurred_at, debits, credits, last_seq
             from d where tid is null
         ), threads as (
             select array_agg(coalesce(previous, -1) order by place) as seqs from d
         ), written as (
             insert into millrace.ledger (seq, log_offset, amount, occurred_at, recorded_at, partition, verdict, id,
                 digest, currency, debit_account, credit_account, kind, source, reference, metadata, debit_previous,
                 credit_previous)
             select seq, log_offset, amount, occurred_at, $9, partition, verdict, id, digest, currency,
                 debit_account, credit_account, kind, source, reference, metadata::jsonb,
                 coalesce(debit_row, nullif(seqs[debit_slice], -1)),
                 coalesce(credit_row, nullif(seqs[credit_slice], -1))
             from unnest($10::bigint[], $11::bigint[], $12::bigint[], $13::timestamptz[], $14::int[],
                 $15::smallint[], $16::uuid[], $17::bytea[], $18::text[], $19::text[], $20::text[], $21::text[],
                 $22::text[], $23::text[], $24::text[], $25::bigint[], $26::bigint[], $27::int[], $28::int[])
                 l(seq, log_offset, amount, occurred_at, partition, verdict, id, digest, currency, debit_account,
                     credit_account, kind, source, reference, metadata, debit_row, credit_row, debit_slice,
                     credit_slice), threads
         )
         select (select count(tid) from d) = (select count(*) from changed) as "is_whole!""#,
        &column(slices, |d| d.account) as _,
        &column(slices, |d| d.currency) as _,
        &column(slices, |d| d.partition),
        &column(slices, |d| d.transactions),
        &column(slices, |d| Micros(d.last_occurred_at)) as _,
        &column(slices, |d| d.debits),
        &column(slices, |d| d.credits),
        &column(slices, |d| d.last_seq),
        Micros(outcome.recorded_at) as _,
        &column(rows, |row| row.seq),
        &column(rows, |row| row.log_offset),
        &column(rows, |row| row.transaction.amount.minor_units()),
        &column(rows, |row| Micros(row.transaction.occurred_at)) as _,
        &column(rows, |row| row.partition),
        &column(rows, |row| row.verdict),
        &column(rows, |row| row.transaction.id),
        &column(rows, |row| &row.digest[..]) as _,
        &column(rows, |row| row.transaction.currency.code()) as _,
        &column(rows, |row| row.transaction.debit_account.as_str()) as _,
        &column(rows, |row| row.transaction.credit_account.as_str()) as _,
        &column(rows, |row| &*row.transaction.kind) as _,
        &column(rows, |row| &*row.transaction.source) as _,
        &column(rows, reference) as _,
        &column(rows, metadata) as _,
        &column(rows, |row| row.debit_previous.row()) as _,
        &column(rows, |row| row.credit_previous.row()) as _,
        &column(rows, |row| row.debit_previous.slice()) as _,
        &column(rows, |row| row.credit_previous.slice()) as _
    )
    .fetch_one(connection)
    .await
    .map_err(|error| refused(&error))?;
    if is_whole { Ok(()) } else { Err(elsewhere()) }
}

/// What one parameter holds: a value of each row.
fn column<'r, R, T>(rows: &'r [R], field: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

impl Previous {
    fn row(self) -> Option<i64> {
        match self {
            Self::Row(seq) => Some(seq),
            Self::None | Self::Slice(_) => None,
        }
    }

    /// The place among the slices, from 1 as SQL counts.
    fn slice(self) -> Option<i32> {
        match self {
            Self::Slice(index) => i32::try_from(index + 1).ok(),
            Self::None | Self::Row(_) => None,
        }
    }
}

/// A constraint says whose it is. What else is wrong with a value is found out by the statements for large batches,
/// one table each.
fn refused(error: &sqlx::Error) -> Error {
    let table = error.as_database_error().and_then(DatabaseError::table);
    match Error::from_sqlx(error, During::LedgerRows) {
        Error::Row(text) if table != Some("ledger") => Error::Retry(text),
        other => other,
    }
}
