//! A transaction by id, and an account's transactions.

use millrace_http::Problem;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::database::Error;
use crate::reports::query::invalid_cursor;
use crate::store::time;

/// How many records of one id are shown.
pub const RECORDS_MAX: usize = 50;

/// What became of one record that carried an id.
#[derive(Debug, Serialize, sqlx::FromRow, ToSchema)]
pub struct Record {
    /// The transaction's id.
    pub id: Uuid,
    /// `posted`, `rejected` (by a rule; bound to the id), `refused` (binds no id) or `parked`.
    #[schema(value_type = crate::api::Verdict)]
    pub verdict: String,
    /// Why, unless posted: a stable name such as `insufficient_funds`.
    pub reason: Option<String>,
    /// What exactly was wrong, where more is known than the reason.
    pub detail: Option<String>,
    /// What kind of transaction, in the sender's words.
    pub kind: Option<String>,
    /// The account that the amount is taken from.
    pub debit_account: Option<String>,
    /// The account that the amount is given to.
    pub credit_account: Option<String>,
    /// Minor units of the currency.
    pub amount: Option<i64>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// Decimal digits of the currency's minor unit.
    pub exponent: Option<i32>,
    /// When it happened, as the sender says; RFC 3339.
    #[schema(format = DateTime)]
    pub occurred_at: Option<String>,
    /// When the verdict was recorded; RFC 3339.
    #[schema(format = DateTime)]
    pub recorded_at: String,
    /// The sender's text.
    pub reference: Option<String>,
    /// The upstream system.
    pub source: Option<String>,
    /// Further texts by name.
    #[sqlx(try_from = "Option<String>")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub metadata: Metadata,
    /// The partition of the log that the record came from.
    pub partition: i32,
    /// Its number among the stored outcomes of the partition.
    pub seq: i64,
    /// Its offset in the partition of the log.
    pub offset: i64,
    /// What an operator did with a parked record; none while it is open.
    pub resolution: Option<String>,
}

/// Metadata as the database shows it.
#[derive(Debug, Default)]
pub struct Metadata(pub Option<Box<RawValue>>);

impl TryFrom<Option<String>> for Metadata {
    type Error = serde_json::Error;

    fn try_from(text: Option<String>) -> Result<Self, Self::Error> {
        text.map(RawValue::from_string).transpose().map(Self)
    }
}

impl Serialize for Metadata {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

const BY_ID: &str = concat!(
    "select id, verdict, reason, detail, kind, debit_account, credit_account, amount, currency, exponent, ",
    time!("occurred_at"),
    " as occurred_at, ",
    time!("recorded_at"),
    " as recorded_at, reference, source, metadata, partition, seq, log_offset as offset, resolution
     from (
        select 0 as rank, id, 'posted' as verdict, null::text as reason, null::text as detail, kind, debit_account,
            credit_account, amount, currency, exponent, occurred_at, recorded_at, reference, source,
            metadata::text as metadata, partition, seq, log_offset, null::text as resolution
        from reports.transactions where id = $1
        union all
        select case when detail is null then 1 else 4 end, id,
            case when detail is null then 'rejected' else 'refused' end, reason, detail, null, debit_account,
            credit_account, amount, currency, exponent, occurred_at, recorded_at, null, null, null, partition, seq,
            log_offset, null
        from reports.rejections where id = $1
        union all
        select case when resolution is null then 2 else 3 end, id, 'parked', reason, detail, null, null, null, null,
            null, null, null, parked_at, null, null, null, partition, seq, log_offset, resolution
        from reports.parked where id = $1
     ) r
     order by rank, r.recorded_at desc, partition, seq desc
     limit $2"
);

/// The stored records of an id, the one that decides its verdict first, and whether there are more than
/// [`RECORDS_MAX`]. A duplicate is only counted.
pub async fn by_id(pool: &PgPool, id: Uuid) -> Result<(Vec<Record>, bool), Error> {
    let mut records: Vec<Record> = sqlx::query_as(BY_ID)
        .bind(id)
        .bind(i64::try_from(RECORDS_MAX + 1).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    let more = records.len() > RECORDS_MAX;
    records.truncate(RECORDS_MAX);
    Ok((records, more))
}

/// A posted transaction of an account.
#[derive(Debug, Serialize, sqlx::FromRow, ToSchema)]
pub struct Entry {
    /// The transaction's id.
    pub id: Uuid,
    /// What kind of transaction, in the sender's words.
    pub kind: String,
    /// The account that the amount was taken from.
    pub debit_account: String,
    /// The account that the amount was given to.
    pub credit_account: String,
    /// Minor units of the currency.
    pub amount: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Decimal digits of the currency's minor unit.
    pub exponent: Option<i32>,
    /// When it happened, as the sender says; RFC 3339.
    #[schema(format = DateTime)]
    pub occurred_at: String,
    /// When it was posted; RFC 3339.
    #[schema(format = DateTime)]
    pub recorded_at: String,
    /// The sender's text.
    pub reference: Option<String>,
    /// The upstream system.
    pub source: String,
    /// The partition of the log that it came from.
    pub partition: i32,
    /// Its number among the stored outcomes of the partition.
    pub seq: i64,
    /// Its record's offset in the log.
    pub offset: i64,
}

const OF_ACCOUNT: &str = concat!(
    "select id, kind, debit_account, credit_account, amount, currency, exponent, ",
    time!("occurred_at"),
    " as occurred_at, ",
    time!("recorded_at"),
    " as recorded_at, reference, source, partition, seq, log_offset as offset
     from reports.transactions t
     where (debit_account = $1 or credit_account = $1)
        and ($2::timestamptz is null or (t.recorded_at, partition, seq) < ($2::timestamptz, $3, $4))
     order by t.recorded_at desc, partition desc, seq desc
     limit $5"
);

/// The newest first. What is posted later never moves a page: it is newer than every cursor given out.
pub async fn of_account(
    pool: &PgPool,
    account: &str,
    cursor: Option<&str>,
    limit: u32,
) -> Result<(Vec<Entry>, Option<String>), Error> {
    let after = cursor.map(parse_cursor).transpose()?;
    let (recorded_at, partition, seq) = match after {
        Some((time, partition, seq)) => (Some(time), partition, seq),
        None => (None, 0, 0),
    };
    let mut entries: Vec<Entry> = sqlx::query_as(OF_ACCOUNT)
        .bind(account)
        .bind(recorded_at)
        .bind(partition)
        .bind(seq)
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(cursor_at);
    Ok((entries, next))
}

/// The last that were posted, over all partitions: reads as many of each, from the end of its ledger.
pub async fn latest(pool: &PgPool, limit: i64) -> Result<Vec<Entry>, Error> {
    let query = concat!(
        "select t.id, t.kind, t.debit_account, t.credit_account, t.amount, t.currency, t.exponent, ",
        time!("t.occurred_at"),
        " as occurred_at, ",
        time!("t.recorded_at"),
        " as recorded_at, t.reference, t.source, t.partition, t.seq, t.log_offset as offset
         from reports.positions p, lateral (
            select * from reports.transactions
            where partition = p.partition order by seq desc limit $1
         ) t
         order by t.recorded_at desc, t.partition, t.seq desc
         limit $1"
    );
    Ok(sqlx::query_as(query).bind(limit).fetch_all(pool).await?)
}

/// `MICROSECONDS.PARTITION.SEQ` of the last one shown.
fn cursor_at(entry: &Entry) -> String {
    let time: Option<jiff::Timestamp> = entry.recorded_at.parse().ok();
    let micros = time.map_or(0, jiff::Timestamp::as_microsecond);
    format!("{micros}.{}.{}", entry.partition, entry.seq)
}

fn parse_cursor(text: &str) -> Result<(String, i32, i64), Problem> {
    let parse = || {
        let mut parts = text.split('.');
        let mut part = || {
            let part = parts.next()?;
            part.bytes().all(|b| b.is_ascii_digit()).then_some(part)
        };
        let (micros, partition, seq) = (part()?, part()?, part()?);
        let time = jiff::Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
        let parsed = (time.to_string(), partition.parse().ok()?, seq.parse().ok()?);
        parts.next().is_none().then_some(parsed)
    };
    parse().ok_or_else(invalid_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_are_cursors() {
        assert_eq!(
            parse_cursor("1767323045000006.11.42").unwrap(),
            ("2026-01-02T03:04:05.000006Z".into(), 11, 42)
        );
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "-1.0.0",
            "1.99999999999.0",
            "99999999999999999999.0.0",
            "9999999999999999.0.",
        ] {
            assert!(parse_cursor(bad).is_err(), "{bad}");
        }
    }
}
