//! What accounts may do: setting and showing it.
//!
//! Every change bumps the policy version of the partitions that decide by it, in the same database
//! transaction and under their row locks, so a lane never decides by an older policy after it.

use millrace_rules::{AccountId, Currency, Limit, Status};
use millrace_schemas::partition_of;
use sqlx::{Connection as _, PgConnection};

use crate::store::served;

/// Why a policy could not be set or shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The outside world is never limited.
    #[error("{0} is the outside world: it can go negative and takes no overdraft limit")]
    External(String),
    /// Its debits are decided in another database.
    #[error(
        "the debits of {account} are decided in partition {partition}, which this database does not serve: set \
         its limit in the database that serves it"
    )]
    Elsewhere {
        /// The account.
        account: String,
        /// Where its debits are.
        partition: i32,
    },
    /// Limits cannot be negative.
    #[error("an overdraft limit of {0} is not 0 or more minor units, or unlimited")]
    Negative(i64),
    /// Everything else.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
}

/// What is set for an account or for all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `*` is the default for all accounts without a row of their own.
    pub account: String,
    /// `*` is every currency without a row of its own; none for a status.
    pub currency: Option<String>,
    /// The overdraft limit in minor units; none for a status.
    pub limit: Option<Limit>,
    /// The status; none for a limit.
    pub status: Option<Status>,
}

/// The account of the default policy.
const ANY: &str = "*";

/// Sets an account's overdraft limit, for one currency or for all, and what it may do: what is given
/// of them, together. A status counts in every partition, for credits come from all of them.
pub async fn set(
    connection: &mut PgConnection,
    account: &AccountId<'_>,
    limit: Option<(Option<Currency>, Limit)>,
    status: Option<Status>,
) -> Result<(), Error> {
    if account.is_external() && limit.is_some() {
        return Err(Error::External(account.to_string()));
    }
    let mut db_tx = connection.begin().await?;
    if let Some((currency, limit)) = limit {
        refuse_elsewhere(&mut db_tx, account).await?;
        write_limit(&mut db_tx, account.as_str(), currency, limit).await?;
    }
    if let Some(status) = status {
        write_status(&mut db_tx, account.as_str(), status).await?;
    }
    bump(&mut db_tx, status.is_none().then_some(account)).await?;
    Ok(db_tx.commit().await?)
}

/// Sets the limit of all accounts that have none of their own, for one currency or for all.
pub async fn set_default_limit(
    connection: &mut PgConnection,
    currency: Option<Currency>,
    limit: Limit,
) -> Result<(), Error> {
    let mut db_tx = connection.begin().await?;
    write_limit(&mut db_tx, ANY, currency, limit).await?;
    bump(&mut db_tx, None).await?;
    Ok(db_tx.commit().await?)
}

/// Everything that is set for `account`, or everything there is.
pub async fn show(
    connection: &mut PgConnection,
    account: Option<&AccountId<'_>>,
) -> Result<Vec<Policy>, Error> {
    let account = account.map(AccountId::as_str);
    let rows = sqlx::query!(
        r#"select account as "account!", currency, overdraft_limit, status from (
               select account, currency, overdraft_limit, null as status
               from millrace.overdraft_limits
               union all
               select account, null, null, status from millrace.account_statuses
           ) p
           where $1::text is null or account in ($1, '*')
           order by account, currency"#,
        account
    )
    .fetch_all(connection)
    .await?;
    let policy = |row_limit: Option<i64>| row_limit.map_or(Limit::Unlimited, Limit::Overdraft);
    Ok(rows
        .into_iter()
        .map(|row| Policy {
            account: row.account,
            limit: row.currency.as_ref().map(|_| policy(row.overdraft_limit)),
            currency: row.currency,
            status: row.status.as_deref().and_then(Status::from_name),
        })
        .collect())
}

async fn write_limit(
    connection: &mut PgConnection,
    account: &str,
    currency: Option<Currency>,
    limit: Limit,
) -> Result<(), Error> {
    let overdraft = match limit {
        Limit::Unlimited => None,
        Limit::Overdraft(limit) if limit < 0 => return Err(Error::Negative(limit)),
        Limit::Overdraft(limit) => Some(limit),
    };
    sqlx::query!(
        "insert into millrace.overdraft_limits (account, currency, overdraft_limit)
         values ($1, $2, $3)
         on conflict (account, currency) do update
         set overdraft_limit = excluded.overdraft_limit, set_by = session_user, set_at = now()",
        account,
        currency.map_or(ANY, Currency::code),
        overdraft
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_status(
    connection: &mut PgConnection,
    account: &str,
    status: Status,
) -> Result<(), Error> {
    if status == Status::Open {
        sqlx::query!(
            "delete from millrace.account_statuses where account = $1",
            account
        )
        .execute(connection)
        .await?;
    } else {
        sqlx::query!(
            "insert into millrace.account_statuses (account, status) values ($1, $2)
             on conflict (account) do update
             set status = excluded.status, set_by = session_user, set_at = now()",
            account,
            status.as_str()
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// A limit where no debit of the account ever comes would be one in name alone.
async fn refuse_elsewhere(
    connection: &mut PgConnection,
    account: &AccountId<'_>,
) -> Result<(), Error> {
    let Some(count) = served::topic_partitions(connection).await? else {
        return Ok(());
    };
    let partition = partition_of(account.as_str().as_bytes(), count);
    if served::read(connection).await?.has(partition) {
        return Ok(());
    }
    let account = account.to_string();
    Err(Error::Elsewhere { account, partition })
}

/// Bumps the policy version of the account's partition, or of all.
async fn bump(
    connection: &mut PgConnection,
    account: Option<&AccountId<'_>>,
) -> Result<(), sqlx::Error> {
    let partitions = served::topic_partitions(connection).await?;
    let home = account
        .zip(partitions)
        .map(|(account, count)| partition_of(account.as_str().as_bytes(), count));
    let wanted = match (home, partitions) {
        (Some(_), _) => 1,
        (None, Some(count)) => served::read(connection).await?.of(count).count(),
        (None, None) => usize::MAX,
    };
    let known = sqlx::query_scalar!(
        r#"select count(*) as "count!" from millrace.positions where $1::int is null or partition = $1"#,
        home
    )
    .fetch_one(&mut *connection)
    .await?;
    if usize::try_from(known).is_ok_and(|known| known < wanted) {
        // A partition that a lane is about to see for the first time must see this policy: no row is
        // added until this transaction ends. Batches that already hold their row lock go first; in a
        // weaker mode they could wait for this transaction and it for them.
        sqlx::query!("lock table millrace.positions in exclusive mode")
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query!(
        "with locked as (
             select partition from millrace.positions
             where $1::int is null or partition = $1 order by partition for update
         )
         update millrace.positions p set policy_version = policy_version + 1
         from locked where p.partition = locked.partition",
        home
    )
    .execute(connection)
    .await?;
    Ok(())
}
