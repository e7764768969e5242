//! Parked records as operators see them, and what is open for a replay.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::parking::Selection;
use crate::record::BATCH_BYTES_MAX;
use crate::store::OpenParked;
use crate::store::error::Error;
use crate::store::served;

/// The open records that [`crate::store::Store::open_parked`] gives.
pub(super) async fn open(
    connection: &mut PgConnection,
    partition: i32,
    selection: &Selection,
    after_seq: i64,
    records_max: usize,
) -> Result<Vec<OpenParked>, Error> {
    let records_max = i64::try_from(records_max).unwrap_or(i64::MAX);
    let bytes_max = i64::try_from(BATCH_BYTES_MAX).unwrap_or(i64::MAX);
    let rows = sqlx::query_as!(
        OpenParked,
        r#"with open as materialized (
             select p.seq, p.key, p.log_offset,
                 ($3::bytea is null or p.key = $3) and ($4::smallint is null or p.reason = $4)
                     and ($5::bigint is null or p.log_offset = $5)
                     and ($9::bigint is null or p.seq = $9) as is_chosen,
                 p.key = any($8::bytea[]) as is_also,
                 coalesce(octet_length(p.value), 0) + octet_length(p.headers) as size
             from millrace.parked p
             where p.partition = $1 and p.seq > $2 and not exists (
                 select from millrace.parked_resolutions r
                 where r.partition = p.partition and r.parked_seq = p.seq)
         ), wanted as (
             select seq, is_chosen, row_number() over w as number, sum(size) over w as bytes
             from open o
             where is_chosen or is_also or key in (select key from open where is_chosen)
             window w as (order by seq)
         ), earlier as materialized (
             select distinct e.key
             from millrace.parked e
             where e.partition = $1 and e.seq <= $2 and not exists (
                 select from millrace.parked_resolutions r
                 where r.partition = e.partition and r.parked_seq = e.seq)
         )
         select p.partition, p.seq, p.log_offset, p.record_timestamp, p.key, p.value, p.headers,
             w.is_chosen as "is_chosen!",
             coalesce(p.key in (select key from earlier where key is not null), false) as "has_earlier!"
         from wanted w join millrace.parked p on p.partition = $1 and p.seq = w.seq
         where w.number <= $6 and (w.number = 1 or w.bytes <= $7)
         order by p.seq"#,
        partition,
        after_seq,
        selection.key.as_deref(),
        selection.reason,
        selection.log_offset,
        records_max,
        bytes_max,
        &selection.also_keys,
        selection.seq
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Open records of one reason in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The partition.
    pub partition: i32,
    /// The reason's name.
    pub reason: String,
    /// How many are open.
    pub open: i64,
    /// How many keys they hold.
    pub keys: i64,
    /// The age of the oldest one, in seconds.
    pub oldest_age_s: i64,
    /// The first of them: its offset and what was wrong with it.
    pub first_offset: i64,
    /// What was wrong with the first of them.
    pub first_detail: String,
}

/// A histogram of what is open, of all that `listing` chooses whatever its limit.
pub async fn groups(
    connection: &mut PgConnection,
    listing: Listing<'_>,
) -> Result<Vec<Group>, sqlx::Error> {
    sqlx::query_as!(
        Group,
        r#"select partition as "partition!", coalesce(reason, 'unknown') as "reason!",
             count(*) as "open!", count(distinct key) as "keys!",
             greatest(extract(epoch from now() - min(parked_at)), 0)::bigint as "oldest_age_s!",
             min(log_offset) as "first_offset!",
             (array_agg(detail order by seq))[1] as "first_detail!"
         from reports.parked
         where resolution is null
             and ($1::int is null or partition = $1) and ($2::bytea is null or key = $2)
             and ($3::text is null or reason = $3) and ($4::bigint is null or log_offset = $4)
             and ($5::bigint is null or seq = $5)
         group by partition, reason order by partition, count(*) desc, reason"#,
        listing.partition,
        listing.key,
        listing.reason,
        listing.log_offset,
        listing.seq
    )
    .fetch_all(connection)
    .await
}

/// A parked record with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns are described with reports.parked")]
pub struct Parked {
    pub partition: i32,
    pub seq: i64,
    pub log_offset: i64,
    pub reason: String,
    pub detail: String,
    pub parked_at: String,
    pub id: Option<Uuid>,
    pub key: Option<Vec<u8>>,
    /// Of the value and the headers together.
    pub size_bytes: i64,
    /// The value; none where it has none or was not asked for.
    pub bytes: Option<Vec<u8>>,
    /// Empty where they were not asked for.
    pub headers: Vec<u8>,
    pub resolution: Option<String>,
    pub resolution_reason: Option<String>,
    pub operator: Option<String>,
    pub resolved_at: Option<String>,
}

/// Which parked records are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listing<'a> {
    /// Of this partition.
    pub partition: Option<i32>,
    /// Of this key.
    pub key: Option<&'a [u8]>,
    /// For this reason.
    pub reason: Option<&'a str>,
    /// At this offset.
    pub log_offset: Option<i64>,
    /// With this number.
    pub seq: Option<i64>,
    /// Resolved ones too.
    pub all: bool,
    /// Values and headers too.
    pub with_bytes: bool,
    /// At most so many.
    pub limit: i64,
}

/// Parked records, by partition and `seq`.
pub async fn list(
    connection: &mut PgConnection,
    listing: Listing<'_>,
) -> Result<Vec<Parked>, sqlx::Error> {
    sqlx::query_as!(
        Parked,
        r#"select partition as "partition!", seq as "seq!", log_offset as "log_offset!",
             coalesce(reason, 'unknown') as "reason!", detail as "detail!",
             to_char(parked_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "parked_at!",
             id, key, (coalesce(octet_length(bytes), 0) + octet_length(headers))::bigint as "size_bytes!",
             case when $7 then bytes end as bytes,
             case when $7 then headers else '' end as "headers!", resolution, resolution_reason, operator,
             to_char(resolved_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as resolved_at
         from reports.parked
         where ($1::int is null or partition = $1) and ($2::bytea is null or key = $2)
             and ($3::text is null or reason = $3) and ($4::bigint is null or log_offset = $4)
             and ($5 or resolution is null) and ($8::bigint is null or seq = $8)
         order by partition, seq limit $6"#,
        listing.partition,
        listing.key,
        listing.reason,
        listing.log_offset,
        listing.all,
        listing.limit,
        listing.with_bytes,
        listing.seq
    )
    .fetch_all(connection)
    .await
}

/// How many partitions the database's topic has, and those with open parked records, ascending.
pub async fn open_partitions(
    connection: &mut PgConnection,
) -> Result<Option<(i32, Vec<i32>)>, sqlx::Error> {
    let partitions = served::topic_partitions(connection).await?;
    let open = sqlx::query_scalar!(
        "select partition from millrace.positions where parked_open > 0 order by partition"
    )
    .fetch_all(connection)
    .await?;
    Ok(partitions.map(|partitions| (partitions, open)))
}
