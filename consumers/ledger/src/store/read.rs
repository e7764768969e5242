//! What a batch reads, and the locks under which it reads.

use millrace_rules::{Currency, Limit, Status};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::kafka::log::Topic;
use crate::store::error::Error;
use crate::store::postgres::{LOCK_TIMEOUT, LOCK_TIMEOUT_SHORT, OWNER_TIMEOUT};
use crate::store::{Anchor, Attached, LockWait, Policies, Position, Served};

/// The first key of the partitions' advisory locks: "MILL". The second is the partition.
pub(super) const LOCK_CLASS: i32 = 0x4d49_4c4c;

pub(super) async fn attach(
    connection: &mut PgConnection,
    topic: &Topic,
    starts: &[(i32, i64)],
) -> Result<Attached, Error> {
    sqlx::query!(
        "insert into millrace.log (topic, cluster_id, partitions) values ($1, $2, $3)
         on conflict do nothing",
        topic.name,
        topic.cluster_id,
        topic.partitions
    )
    .execute(&mut *connection)
    .await?;
    let log = sqlx::query!(
        "select topic, cluster_id, partitions, database_id,
             (select s.partitions from millrace.served s) as served
         from millrace.log"
    )
    .fetch_one(&mut *connection)
    .await?;
    let (partitions, offsets): (Vec<_>, Vec<_>) = starts.iter().copied().unzip();
    // A conflict with a row that an open batch has moved would wait for that batch, and for a frozen owner
    // for ever: rows that are there are not tried.
    sqlx::query!(
        "insert into millrace.positions (partition, start_offset, position, chain_head, updated_at)
         select partition, start, start, $3, now() from unnest($1::int[], $2::bigint[]) s(partition, start)
         where exists (select from millrace.log where topic = $4 and partitions = $5)
             and not exists (select from millrace.served where s.partition <> all (partitions))
             and not exists (select from millrace.positions p where p.partition = s.partition)
         order by partition
         on conflict do nothing",
        &partitions,
        &offsets,
        &crate::chain::GENESIS[..],
        topic.name,
        topic.partitions
    )
    .execute(&mut *connection)
    .await?;
    let positions = found(connection, &partitions).await?;
    let topic = Topic {
        name: log.topic,
        partitions: log.partitions,
        cluster_id: log.cluster_id,
    };
    Ok(Attached {
        database: log.database_id,
        topic,
        served: Served::from_column(log.served),
        positions,
    })
}

pub(super) async fn lock(
    connection: &mut PgConnection,
    partitions: &[i32],
    wait: LockWait,
) -> Result<Vec<Position>, Error> {
    let (owner, other) = match wait {
        LockWait::Normal => (OWNER_TIMEOUT, LOCK_TIMEOUT),
        LockWait::Short => (LOCK_TIMEOUT_SHORT, LOCK_TIMEOUT_SHORT),
    };
    let begin = format!("begin; set local lock_timeout = '{owner}'");
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut *connection)
        .await?;
    // What depends on no row comes first: the advisory locks, in the array's order. The rows were read before them,
    // but `for update` gives each as it is now.
    let rows = sqlx::query_as!(
        PositionRow,
        "select partition, incarnation, position, next_seq, next_batch, chain_head, policy_version,
             parked_open, anchor_offset, anchor_timestamp, anchor_digest
         from millrace.positions
         where partition = any($1) and (
             select set_config('lock_timeout', $3, true)
             from (select count(pg_advisory_xact_lock($2, p)) from unnest($1) p) locked
             where locked.count >= 0) is not null
         order by partition for update",
        partitions,
        LOCK_CLASS,
        other
    )
    .fetch_all(&mut *connection)
    .await?;
    if wait == LockWait::Short {
        let normal = format!("set local lock_timeout = '{LOCK_TIMEOUT}'");
        sqlx::raw_sql(AssertSqlSafe(normal))
            .execute(connection)
            .await?;
    }
    if rows.len() != partitions.len() {
        return Err(Error::Unavailable(format!(
            "partitions {partitions:?} are not all there"
        )));
    }
    positions(rows)
}

/// The positions of those partitions that have one, ascending. No lock.
pub(super) async fn found(
    connection: &mut PgConnection,
    partitions: &[i32],
) -> Result<Vec<Position>, Error> {
    let rows = sqlx::query_as!(
        PositionRow,
        "select partition, incarnation, position, next_seq, next_batch, chain_head, policy_version,
             parked_open, anchor_offset, anchor_timestamp, anchor_digest
         from millrace.positions where partition = any($1) order by partition",
        partitions
    )
    .fetch_all(connection)
    .await?;
    positions(rows)
}

struct PositionRow {
    partition: i32,
    incarnation: i32,
    position: i64,
    next_seq: i64,
    next_batch: i64,
    chain_head: Vec<u8>,
    policy_version: i64,
    parked_open: i64,
    anchor_offset: Option<i64>,
    anchor_timestamp: Option<i64>,
    anchor_digest: Option<Vec<u8>>,
}

fn positions(rows: Vec<PositionRow>) -> Result<Vec<Position>, Error> {
    rows.into_iter()
        .map(|row| {
            let anchor = match (row.anchor_offset, row.anchor_digest) {
                (Some(offset), Some(bytes)) => Some(Anchor {
                    offset,
                    timestamp: row.anchor_timestamp,
                    digest: digest(&bytes)?,
                }),
                _ => None,
            };
            Ok(Position {
                partition: row.partition,
                incarnation: row.incarnation,
                position: row.position,
                next_seq: row.next_seq,
                next_batch: row.next_batch,
                chain_head: digest(&row.chain_head)?,
                policy_version: row.policy_version,
                parked_open: row.parked_open,
                anchor,
            })
        })
        .collect()
}

fn digest(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Contradiction(format!("a digest has {} bytes, not 32", bytes.len())))
}

pub(super) async fn known(
    connection: &mut PgConnection,
    ids: &[[u8; 16]],
) -> Result<Vec<([u8; 16], [u8; 32])>, Error> {
    let ids: Vec<_> = ids.iter().map(|id| Uuid::from_bytes(*id)).collect();
    let rows = sqlx::query!(
        "select id, digest from millrace.ledger where id = any($1)",
        &ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| Ok((row.id.into_bytes(), digest(&row.digest)?)))
        .collect()
}

pub(super) async fn held(
    connection: &mut PgConnection,
    keys: &[(i32, &[u8])],
) -> Result<Vec<(i32, Vec<u8>)>, Error> {
    let (partitions, keys): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"select k.partition as "partition!", k.key as "key!"
           from unnest($1::int[], $2::bytea[]) k(partition, key)
           where exists (
               select from millrace.parked p
               where p.partition = k.partition and p.key = k.key and not exists (
                   select from millrace.parked_resolutions r
                   where r.partition = p.partition and r.parked_seq = p.seq))"#,
        &partitions,
        &keys as _
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.partition, row.key))
        .collect())
}

pub(super) async fn policies(
    connection: &mut PgConnection,
    accounts: &[&str],
) -> Result<Policies, Error> {
    let any = sqlx::query!(
        r#"select exists (select from millrace.overdraft_limits where account <> '*') as "limits!",
             exists (select from millrace.account_statuses) as "statuses!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut policies = Policies {
        any_limits: any.limits,
        any_statuses: any.statuses,
        ..Policies::default()
    };
    let limits = sqlx::query!(
        "select account, currency, overdraft_limit from millrace.overdraft_limits
         where account = '*' or account = any($1)",
        accounts as _
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in limits {
        let currency = match row.currency.as_str() {
            "*" => None,
            code => Some(Currency::parse(code).ok_or_else(|| unknown("currency", code))?),
        };
        let limit = row
            .overdraft_limit
            .map_or(Limit::Unlimited, Limit::Overdraft);
        if row.account == "*" {
            policies.default_limits.push((currency, limit));
        } else {
            policies.limits.push((row.account, currency, limit));
        }
    }
    let statuses = sqlx::query!(
        "select account, status from millrace.account_statuses where account = any($1)",
        accounts as _
    )
    .fetch_all(connection)
    .await?;
    for row in statuses {
        let status =
            Status::from_name(&row.status).ok_or_else(|| unknown("status", &row.status))?;
        policies.statuses.push((row.account, status));
    }
    Ok(policies)
}

fn unknown(what: &str, value: &str) -> Error {
    Error::Unavailable(format!(
        "a policy names the {what} {value:?}, which this version does not know"
    ))
}

pub(super) async fn funds(
    connection: &mut PgConnection,
    accounts: &[(&str, Currency)],
) -> Result<Vec<i128>, Error> {
    let (ids, codes): (Vec<_>, Vec<_>) = accounts
        .iter()
        .map(|(account, currency)| (*account, currency.code()))
        .unzip();
    let sums = sqlx::query_scalar!(
        r#"select (
               select coalesce(sum(b.credits - b.debits), 0) from millrace.balances b
               where b.account = a.account and b.currency = a.currency
           )::text as "sum!"
           from unnest($1::text[], $2::text[]) with ordinality a(account, currency, place)
           order by place"#,
        &ids as _,
        &codes as _
    )
    .fetch_all(connection)
    .await?;
    sums.iter()
        .map(|sum| {
            sum.parse()
                .map_err(|_| Error::Contradiction(format!("a balance is {sum:?}")))
        })
        .collect()
}
