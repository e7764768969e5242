//! A transaction by id, and the latest.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::database::Error;
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
