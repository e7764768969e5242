//! Parked records, for the command line and the admin port: one way to say which, and to resolve them.

use millrace_ledger::group::SystemClock;
use millrace_ledger::parking::{self, Order, Resolved, Selection};
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::pipeline::outcome::Resolution;
use millrace_ledger::store::parked::{self, Parked};
use millrace_ledger::store::postgres::Postgres;
use millrace_rules::ParkReason;
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

/// What is to be done with which open records.
#[derive(Debug, Clone)]
pub struct Request {
    /// Replay or discard.
    pub resolution: Resolution,
    /// Of this partition only.
    pub partition: Option<i32>,
    /// Which of its records.
    pub selection: Selection,
    /// Why.
    pub reason: String,
    /// Who.
    pub operator: String,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
}

/// Several open records are at the offset that was named.
#[derive(Debug, thiserror::Error)]
#[error("several open records were parked at offset {offset}: say which by its seq, {seqs}")]
pub struct Ambiguous {
    offset: i64,
    seqs: String,
}

/// The code of a reason's name.
pub fn park_reason(name: &str) -> Result<i16, String> {
    let found = ParkReason::ALL.into_iter().find(|r| r.as_str() == name);
    let names = ParkReason::ALL.map(ParkReason::as_str).join(", ");
    found
        .map(ParkReason::code)
        .ok_or_else(|| format!("one of {names}"))
}

/// Does it, partition by partition. `progress` is called after each database transaction.
pub async fn resolve(
    database: &PgConnectOptions,
    request: &Request,
    mut progress: impl FnMut(i32, &Resolved),
) -> anyhow::Result<Resolved> {
    let options = database.clone().application_name("millrace");
    let mut connection = crate::cli::connect(&options).await?;
    let Some((partitions, open)) = parked::open_partitions(&mut connection).await? else {
        return Ok(Resolved::default());
    };
    refuse_ambiguous(&mut connection, request).await?;
    let mut store = Postgres::new(database.clone(), format!("operator {}", request.operator));
    let mut all = Resolved::default();
    let chosen = open
        .into_iter()
        .filter(|open| request.partition.is_none_or(|wanted| wanted == *open));
    for partition in chosen {
        let order = Order {
            partition,
            selection: &request.selection,
            reason: &request.reason,
            operator: &request.operator,
            dry_run: request.dry_run,
        };
        let clock = SystemClock::default();
        let now = || clock.wall_micros();
        let progress = |resolved: &Resolved| progress(partition, resolved);
        let resolved = match request.resolution {
            Resolution::Replayed => {
                parking::replay(&mut store, order, partitions, now, progress).await
            }
            Resolution::Discarded => parking::discard(&mut store, order, now, progress).await,
        };
        all.merge(resolved?);
    }
    Ok(all)
}

/// An offset means one record: of a topic that was recreated, two may have been parked there.
async fn refuse_ambiguous(connection: &mut PgConnection, request: &Request) -> anyhow::Result<()> {
    let Selection {
        log_offset: Some(offset),
        seq: None,
        ..
    } = request.selection
    else {
        return Ok(());
    };
    let mut reasons = ParkReason::ALL.into_iter();
    let reason = reasons.find(|reason| Some(reason.code()) == request.selection.reason);
    let listing = parked::Listing {
        partition: request.partition,
        key: request.selection.key.as_deref(),
        reason: reason.map(ParkReason::as_str),
        log_offset: Some(offset),
        limit: 10,
        ..parked::Listing::default()
    };
    let open = parked::list(connection, listing).await?;
    if open.len() > 1 {
        let seqs = seqs(&open);
        return Err(Ambiguous { offset, seqs }.into());
    }
    Ok(())
}

/// The numbers of records, to choose from.
pub fn seqs(records: &[Parked]) -> String {
    let seqs: Vec<_> = records
        .iter()
        .map(|record| record.seq.to_string())
        .collect();
    seqs.join(" or ")
}

/// The histogram and the records of a listing, as JSON.
pub async fn list(
    connection: &mut PgConnection,
    listing: parked::Listing<'_>,
) -> Result<Value, sqlx::Error> {
    let groups: Vec<_> = parked::groups(connection, listing)
        .await?
        .into_iter()
        .map(|group| {
            json!({
                "partition": group.partition,
                "reason": group.reason,
                "open": group.open,
                "keys": group.keys,
                "oldest_age_s": group.oldest_age_s,
                "first_offset": group.first_offset,
                "first_detail": group.first_detail,
            })
        })
        .collect();
    let records = parked::list(connection, listing).await?;
    let records: Vec<_> = records.iter().map(describe).collect();
    Ok(json!({"open": groups, "records": records}))
}

/// One record as JSON; its bytes as hexadecimal and, where they are one, as text.
pub fn describe(record: &Parked) -> Value {
    let headers: Vec<_> = parking::headers(&record.headers)
        .map(|(name, value)| json!({"name": name, "value": value.map(bytes)}))
        .collect();
    json!({
        "partition": record.partition,
        "offset": record.log_offset,
        "seq": record.seq,
        "reason": record.reason,
        "detail": record.detail,
        "parked_at": record.parked_at,
        "id": record.id.map(|id| id.to_string()),
        "key": record.key.as_deref().map(bytes),
        "size_bytes": record.size_bytes,
        "value": record.bytes.as_deref().map(bytes),
        "headers": headers,
        "resolution": record.resolution,
        "resolution_reason": record.resolution_reason,
        "operator": record.operator,
        "resolved_at": record.resolved_at,
    })
}

fn bytes(bytes: &[u8]) -> Value {
    json!({"hex": hex::encode(bytes), "text": std::str::from_utf8(bytes).ok()})
}

/// What became of the records, as JSON.
pub fn summary(resolved: &Resolved, dry_run: bool) -> Value {
    let remaining: Vec<_> = resolved
        .remaining
        .iter()
        .map(|record| {
            json!({
                "partition": record.partition,
                "offset": record.log_offset,
                "reason": record.reason,
                "detail": record.detail,
            })
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "resolved": resolved.count(),
        "verdicts": resolved.records,
        "still_parked": resolved.remaining_count,
        "still_parked_first": remaining,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named() {
        assert_eq!(park_reason("behind"), Ok(1));
        assert!(park_reason("poison").unwrap_err().contains("undecodable"));
    }
}
