//! Postgres behind the [`Store`] trait.
//!
//! **Lock order**: advisory locks of the partitions ascending, their rows in `positions` ascending,
//! then rows that belong to these partitions alone; the unique index on `ledger.id` comes after all
//! of them, and is the only place where two partitions can wait for each other.

use std::time::Duration;

use millrace_readmodels::{INLINE_GAP_MAX, Mode, Model, record_failure};
use millrace_rules::{Currency, Limit, Status};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tracing::warn;
use uuid::Uuid;

use crate::kafka::log::Topic;
use crate::pipeline::plan::{Delta, Outcome};
use crate::store::copy::{COPY_LEDGER, COPY_PARKED, COPY_REFUSED, Rows};
use crate::store::error::{During, Error};
use crate::store::{Advance, Attached, Micros, PartitionStatus, Policies, Position, Store, schema};

/// The first key of the partitions' advisory locks: "MILL". The second is the partition.
pub const LOCK_CLASS: i32 = 0x4d49_4c4c;

/// No statement of a batch takes this long on a working database; beyond, the connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a lane waits for another owner's lock before it goes back to polling.
const LOCK_TIMEOUT: &str = "5s";

/// One connection, opened when it is needed.
pub struct Postgres {
    options: PgConnectOptions,
    owner: String,
    connection: Option<PgConnection>,
    in_transaction: bool,
    rows: Rows,
}

impl Postgres {
    /// Nothing is opened yet. `owner` is shown to people as the partitions' owner.
    pub fn new(options: PgConnectOptions, owner: String) -> Self {
        Self {
            options,
            owner,
            connection: None,
            in_transaction: false,
            rows: Rows::default(),
        }
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        if self.connection.is_none() {
            self.in_transaction = false;
            let opened = tokio::time::timeout(STATEMENT_TIMEOUT, open(&self.options, &self.owner));
            let opened = opened.await.map_err(|_| Error::timeout("connecting"))??;
            self.connection = Some(opened);
        }
        Ok(self.connection.as_mut().expect("it was just opened"))
    }

    /// The connection of the transaction that [`Store::lock`] has begun.
    fn transaction(&mut self) -> Result<&mut PgConnection, Error> {
        self.connection
            .as_mut()
            .ok_or_else(|| Error::Unavailable("the connection is gone".into()))
    }

    async fn write_rows(&mut self, outcome: &Outcome<'_>) -> Result<(), Error> {
        let recorded_at = outcome.recorded_at;
        let mut rows = std::mem::take(&mut self.rows);
        let connection = self.transaction()?;
        let mut result = Ok(());
        if !outcome.ledger.is_empty() {
            let bytes = rows.ledger(&outcome.ledger, recorded_at);
            result = copy(connection, COPY_LEDGER, bytes, During::LedgerRows).await;
        }
        if result.is_ok() && !outcome.refused.is_empty() {
            let bytes = rows.refused(&outcome.refused, recorded_at);
            result = copy(connection, COPY_REFUSED, bytes, During::Other).await;
        }
        if result.is_ok() && !outcome.parked.is_empty() {
            let bytes = rows.parked(&outcome.parked, recorded_at);
            result = copy(connection, COPY_PARKED, bytes, During::Other).await;
        }
        self.rows = rows;
        result
    }
}

impl Error {
    fn timeout(doing: &str) -> Self {
        let seconds = STATEMENT_TIMEOUT.as_secs();
        Self::Unavailable(format!("{doing} took longer than {seconds} s"))
    }
}

/// Runs one step with a bound; a connection that hangs or is lost is dropped.
macro_rules! bounded {
    ($self:ident, $doing:literal, $step:expr) => {{
        let result = tokio::time::timeout(STATEMENT_TIMEOUT, $step).await;
        let result = result.unwrap_or_else(|_| Err(Error::timeout($doing)));
        if matches!(result, Err(Error::Unavailable(_))) {
            $self.connection = None;
            $self.in_transaction = false;
        }
        result
    }};
}

impl Store for Postgres {
    async fn attach(&mut self, topic: &Topic, starts: &[(i32, i64)]) -> Result<Attached, Error> {
        bounded!(self, "reading the positions", async {
            attach(self.connection().await?, topic, starts).await
        })
    }

    async fn lock(&mut self, partitions: &[i32]) -> Result<Vec<Position>, Error> {
        let locked = bounded!(self, "locking", async {
            lock(self.connection().await?, partitions).await
        });
        self.in_transaction = self.connection.is_some();
        locked
    }

    async fn known(&mut self, ids: &[[u8; 16]]) -> Result<Vec<([u8; 16], [u8; 32])>, Error> {
        bounded!(self, "looking up ids", async {
            known(self.transaction()?, ids).await
        })
    }

    async fn held(&mut self, keys: &[(i32, &[u8])]) -> Result<Vec<(i32, Vec<u8>)>, Error> {
        bounded!(self, "looking up held keys", async {
            held(self.transaction()?, keys).await
        })
    }

    async fn policies(&mut self, accounts: &[&str]) -> Result<Policies, Error> {
        bounded!(self, "reading policies", async {
            policies(self.transaction()?, accounts).await
        })
    }

    async fn funds(&mut self, accounts: &[(&str, Currency)]) -> Result<Vec<i128>, Error> {
        bounded!(self, "reading funds", async {
            funds(self.transaction()?, accounts).await
        })
    }

    async fn write(&mut self, outcome: &Outcome<'_>) -> Result<(), Error> {
        bounded!(self, "writing a batch", async {
            self.write_rows(outcome).await?;
            let connection = self.transaction()?;
            if !outcome.balances.is_empty() {
                write_balances(connection, &outcome.balances).await?;
            }
            write_advances(connection, &outcome.advances).await?;
            fold_inline(connection, &outcome.advances).await
        })
    }

    async fn commit(&mut self) -> Result<(), Error> {
        bounded!(self, "committing", async {
            sqlx::raw_sql("commit").execute(self.transaction()?).await?;
            Ok(())
        })?;
        self.in_transaction = false;
        Ok(())
    }

    async fn rollback(&mut self) {
        if !std::mem::take(&mut self.in_transaction) {
            return;
        }
        let done: Result<(), Error> = bounded!(self, "rolling back", async {
            sqlx::raw_sql("rollback")
                .execute(self.transaction()?)
                .await?;
            Ok(())
        });
        if done.is_err() {
            self.connection = None;
        }
    }

    async fn publish_status(&mut self, statuses: &[PartitionStatus]) -> Result<(), Error> {
        let owner = self.owner.clone();
        bounded!(self, "writing the partitions' status", async {
            publish_status(self.connection().await?, &owner, statuses).await
        })
    }
}

/// Opens a connection as the writer, if the login may become that role.
async fn open(options: &PgConnectOptions, owner: &str) -> Result<PgConnection, Error> {
    let options = options
        .clone()
        .application_name(&format!("millrace ledger {owner}"));
    let mut connection = PgConnection::connect_with(&options).await?;
    schema::check(&mut connection)
        .await
        .map_err(|e| Error::Unavailable(e.to_string()))?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "select set_config('role', 'millrace_writer', false)
         where pg_has_role('millrace_writer', 'member');
         set search_path = millrace;
         set lock_timeout = '{LOCK_TIMEOUT}';
         set tcp_keepalives_idle = 10;
         set tcp_keepalives_interval = 5;
         set tcp_keepalives_count = 3;
         set jit = off"
    )))
    .execute(&mut connection)
    .await?;
    Ok(connection)
}

async fn attach(
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
    let log = sqlx::query!("select topic, cluster_id, partitions from millrace.log")
        .fetch_one(&mut *connection)
        .await?;
    let (partitions, offsets): (Vec<_>, Vec<_>) = starts.iter().copied().unzip();
    sqlx::query!(
        "insert into millrace.positions (partition, start_offset, position, chain_head, updated_at)
         select partition, start, start, $3, now() from unnest($1::int[], $2::bigint[]) s(partition, start)
         where partition < (select partitions from millrace.log)
         order by partition
         on conflict do nothing",
        &partitions,
        &offsets,
        &crate::chain::GENESIS[..]
    )
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query_as!(
        PositionRow,
        "select partition, incarnation, position, next_seq, next_batch, chain_head, policy_version,
             parked_open
         from millrace.positions where partition = any($1) order by partition",
        &partitions
    )
    .fetch_all(connection)
    .await?;
    let topic = Topic {
        name: log.topic,
        partitions: log.partitions,
        cluster_id: log.cluster_id,
    };
    Ok(Attached {
        topic,
        positions: positions(rows)?,
    })
}

async fn lock(connection: &mut PgConnection, partitions: &[i32]) -> Result<Vec<Position>, Error> {
    use std::fmt::Write as _;
    let mut begin = String::from("begin");
    for partition in partitions {
        let _ = write!(
            begin,
            "; select pg_advisory_xact_lock({LOCK_CLASS}, {partition})"
        );
    }
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query_as!(
        PositionRow,
        "select partition, incarnation, position, next_seq, next_batch, chain_head, policy_version,
             parked_open
         from millrace.positions where partition = any($1) order by partition for update",
        partitions
    )
    .fetch_all(connection)
    .await?;
    if rows.len() != partitions.len() {
        return Err(Error::Unavailable(format!(
            "partitions {partitions:?} are not all there"
        )));
    }
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
}

fn positions(rows: Vec<PositionRow>) -> Result<Vec<Position>, Error> {
    rows.into_iter()
        .map(|row| {
            Ok(Position {
                partition: row.partition,
                incarnation: row.incarnation,
                position: row.position,
                next_seq: row.next_seq,
                next_batch: row.next_batch,
                chain_head: digest(&row.chain_head)?,
                policy_version: row.policy_version,
                parked_open: row.parked_open,
            })
        })
        .collect()
}

fn digest(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Contradiction(format!("a digest has {} bytes, not 32", bytes.len())))
}

async fn known(
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

async fn held(
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

async fn policies(connection: &mut PgConnection, accounts: &[&str]) -> Result<Policies, Error> {
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

async fn funds(
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

async fn copy(
    connection: &mut PgConnection,
    statement: &'static str,
    bytes: &[u8],
    during: During,
) -> Result<(), Error> {
    let copied = async {
        let mut copy = connection.copy_in_raw(statement).await?;
        match copy.send(bytes).await {
            Ok(_) => copy.finish().await,
            Err(error) => {
                copy.abort("the connection failed").await?;
                Err(error)
            }
        }
    };
    copied
        .await
        .map(drop)
        .map_err(|error| Error::from_sqlx(&error, during))
}

async fn write_balances(connection: &mut PgConnection, deltas: &[Delta<'_>]) -> Result<(), Error> {
    // Sorted by the key: no two partitions meet here, and neighbours share pages.
    let of = |field: fn(&Delta<'_>) -> i64| deltas.iter().map(field).collect::<Vec<_>>();
    let times: Vec<_> = deltas
        .iter()
        .map(|delta| Micros(delta.last_occurred_at))
        .collect();
    sqlx::query!(
        "insert into millrace.balances as b
             (account, currency, partition, transactions, last_occurred_at, debits, credits)
         select * from unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::timestamptz[],
             $6::bigint[], $7::bigint[])
         on conflict (account, currency, partition) do update set
             transactions = b.transactions + excluded.transactions,
             last_occurred_at = greatest(b.last_occurred_at, excluded.last_occurred_at),
             debits = b.debits + excluded.debits,
             credits = b.credits + excluded.credits",
        &deltas.iter().map(|delta| delta.account).collect::<Vec<_>>() as _,
        &deltas
            .iter()
            .map(|delta| delta.currency)
            .collect::<Vec<_>>() as _,
        &deltas
            .iter()
            .map(|delta| delta.partition)
            .collect::<Vec<_>>(),
        &of(|delta| delta.transactions),
        &times as _,
        &of(|delta| delta.debits),
        &of(|delta| delta.credits)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One row of `batches` per partition, and the new positions, in one statement.
#[expect(clippy::too_many_lines, reason = "one statement with many columns")]
async fn write_advances(connection: &mut PgConnection, advances: &[Advance]) -> Result<(), Error> {
    let int4 = |field: fn(&Advance) -> i32| advances.iter().map(field).collect::<Vec<_>>();
    let int8 = |field: fn(&Advance) -> i64| advances.iter().map(field).collect::<Vec<_>>();
    let heads: Vec<_> = advances
        .iter()
        .map(|advance| &advance.chain_head[..])
        .collect();
    let times: Vec<_> = advances
        .iter()
        .map(|a| Micros(a.numbers.recorded_at))
        .collect();
    let anchors = || advances.iter().map(|advance| advance.anchor.as_ref());
    let anchor_offsets: Vec<_> = anchors().map(|a| a.map(|a| a.offset)).collect();
    let anchor_times: Vec<_> = anchors().map(|a| a.and_then(|a| a.timestamp)).collect();
    let anchor_digests: Vec<_> = anchors().map(|a| a.map(|a| &a.digest[..])).collect();
    let moved = sqlx::query!(
        "with b as (
             select * from unnest($1::int[], $2::bigint[], $3::int[], $4::bigint[], $5::bigint[],
                 $6::bigint[], $7::bigint[], $8::int[], $9::int[], $10::int[], $11::int[],
                 $12::int[], $13::int[], $14::bigint[], $15::timestamptz[], $16::bytea[],
                 $17::bigint[], $18::bigint[], $19::bytea[])
             as b(partition, batch, incarnation, from_offset, next_offset, first_seq, next_seq,
                 posted, duplicate, rejected, refused, parked, discarded, skipped, recorded_at,
                 chain_head, anchor_offset, anchor_timestamp, anchor_digest)
         ), written as (
             insert into millrace.batches (partition, batch, incarnation, from_offset, next_offset,
                 first_seq, next_seq, posted, duplicate, rejected, refused, parked, discarded,
                 skipped, recorded_at, chain_head)
             select partition, batch, incarnation, from_offset, next_offset, first_seq, next_seq,
                 posted, duplicate, rejected, refused, parked, discarded, skipped, recorded_at,
                 chain_head
             from b
         )
         update millrace.positions p set
             position = b.next_offset,
             next_seq = b.next_seq,
             next_batch = b.batch + 1,
             chain_head = b.chain_head,
             parked_open = p.parked_open + b.parked,
             anchor_offset = coalesce(b.anchor_offset, p.anchor_offset),
             anchor_timestamp = case when b.anchor_offset is null then p.anchor_timestamp
                 else b.anchor_timestamp end,
             anchor_digest = coalesce(b.anchor_digest, p.anchor_digest),
             updated_at = b.recorded_at
         from b
         where p.partition = b.partition and p.incarnation = b.incarnation
             and p.position = b.from_offset and p.next_seq = b.first_seq and p.next_batch = b.batch",
        &int4(|a| a.numbers.partition),
        &int8(|a| a.numbers.batch),
        &int4(|a| a.numbers.incarnation),
        &int8(|a| a.numbers.from_offset),
        &int8(|a| a.numbers.next_offset),
        &int8(|a| a.numbers.first_seq),
        &int8(|a| a.numbers.next_seq),
        &int4(|a| a.numbers.posted),
        &int4(|a| a.numbers.duplicate),
        &int4(|a| a.numbers.rejected),
        &int4(|a| a.numbers.refused),
        &int4(|a| a.numbers.parked),
        &int4(|a| a.numbers.discarded),
        &int8(|a| a.numbers.skipped),
        &times as _,
        &heads as _,
        &anchor_offsets as _,
        &anchor_times as _,
        &anchor_digests as _
    )
    .execute(connection)
    .await?
    .rows_affected();
    if moved == advances.len() as u64 {
        Ok(())
    } else {
        let all = advances.len();
        Err(Error::Contradiction(format!(
            "{moved} of {all} positions are where the lock found them"
        )))
    }
}

/// Folds the inline read models. A model whose fold fails is left behind; the ledger goes on.
async fn fold_inline(connection: &mut PgConnection, advances: &[Advance]) -> Result<(), Error> {
    let ends: Vec<_> = advances
        .iter()
        .map(|a| (a.numbers.partition, a.numbers.next_seq))
        .collect();
    for model in millrace_readmodels::all()
        .iter()
        .filter(|model| model.mode == Mode::Inline)
    {
        sqlx::raw_sql("savepoint fold")
            .execute(&mut *connection)
            .await?;
        match millrace_readmodels::fold_inline(connection, model, &ends, INLINE_GAP_MAX).await {
            Ok(_) => {
                sqlx::raw_sql("release savepoint fold")
                    .execute(&mut *connection)
                    .await?;
            }
            Err(millrace_readmodels::Error::Unavailable(error)) => return Err(error.into()),
            Err(millrace_readmodels::Error::Broken(failure)) => {
                sqlx::raw_sql("rollback to savepoint fold")
                    .execute(&mut *connection)
                    .await?;
                leave_behind(connection, model, &ends, &failure).await?;
            }
        }
    }
    Ok(())
}

async fn leave_behind(
    connection: &mut PgConnection,
    model: &Model,
    ends: &[(i32, i64)],
    failure: &str,
) -> Result<(), Error> {
    for (partition, _) in ends {
        let news = record_failure(&mut *connection, model, *partition, failure).await?;
        if news {
            warn!(
                model = model.name,
                partition,
                error = failure,
                "the read model is left behind"
            );
        }
    }
    Ok(())
}

async fn publish_status(
    connection: &mut PgConnection,
    owner: &str,
    statuses: &[PartitionStatus],
) -> Result<(), Error> {
    let int8 = |field: fn(&PartitionStatus) -> i64| statuses.iter().map(field).collect::<Vec<_>>();
    let oldest: Vec<_> = statuses
        .iter()
        .map(|s| s.oldest_unapplied_at.map(Micros))
        .collect();
    let updated: Vec<_> = statuses.iter().map(|s| Micros(s.updated_at)).collect();
    sqlx::query!(
        "insert into millrace.partition_status
             (partition, owner, state, detail, log_start, log_end, oldest_unapplied_at, updated_at)
         select partition, $2, state, detail, log_start, log_end, oldest, updated
         from unnest($1::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
             $7::timestamptz[], $8::timestamptz[])
             as s(partition, state, detail, log_start, log_end, oldest, updated)
         order by partition
         on conflict (partition) do update set
             owner = excluded.owner, state = excluded.state, detail = excluded.detail,
             log_start = excluded.log_start, log_end = excluded.log_end,
             oldest_unapplied_at = excluded.oldest_unapplied_at, updated_at = excluded.updated_at",
        &statuses.iter().map(|s| s.partition).collect::<Vec<_>>(),
        owner,
        &statuses.iter().map(|s| s.state).collect::<Vec<_>>() as _,
        &statuses
            .iter()
            .map(|s| s.detail.as_str())
            .collect::<Vec<_>>() as _,
        &int8(|s| s.log_start),
        &int8(|s| s.log_end),
        &oldest as _,
        &updated as _
    )
    .execute(connection)
    .await?;
    Ok(())
}
