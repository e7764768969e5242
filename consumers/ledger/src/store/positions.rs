//! Positions as operators see and move them.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::chain::{AcceptanceRow, Chain, Numbers};
use crate::store::error::Error;
use crate::store::postgres::Postgres;
use crate::store::{Advance, LockWait, Micros, Position, Store as _, read};

/// A partition's position and what its owner last said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the columns are described with reports.freshness"
)]
pub struct Listed {
    pub partition: i32,
    pub incarnation: i32,
    pub position: i64,
    pub log_end: Option<i64>,
    pub owner: Option<String>,
    pub state: Option<String>,
    pub detail: Option<String>,
}

/// An incarnation that an operator began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct Accepted {
    pub partition: i32,
    pub incarnation: i32,
    pub previous_position: i64,
    pub start_offset: i64,
    pub reason: String,
    pub operator: String,
    pub accepted_at: Micros,
}

/// A partition's position in its database.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Which database.
    pub database: Uuid,
    /// The position.
    pub position: Position,
}

/// What an operator accepts.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance<'a> {
    /// The position as the operator saw it: another one since then is an error.
    pub seen: Position,
    /// Where the new incarnation begins.
    pub start_offset: i64,
    /// Why.
    pub reason: &'a str,
    /// Who.
    pub operator: &'a str,
    /// When, microseconds since 1970.
    pub now: i64,
}

/// Every position, ascending.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<Listed>, sqlx::Error> {
    sqlx::query_as!(
        Listed,
        r#"select partition as "partition!", incarnation as "incarnation!", position as "position!",
             log_end, owner, state, detail
         from reports.freshness order by partition"#
    )
    .fetch_all(connection)
    .await
}

/// Every incarnation but the first ones, in the order in which they began.
pub async fn accepted(connection: &mut PgConnection) -> Result<Vec<Accepted>, sqlx::Error> {
    sqlx::query_as!(
        Accepted,
        r#"select partition, incarnation, previous_position, start_offset, reason, operator,
             accepted_at as "accepted_at: Micros"
         from millrace.incarnations order by accepted_at, partition"#
    )
    .fetch_all(connection)
    .await
}

impl Acceptance<'_> {
    /// The batch with which the incarnation begins: no records, at its start.
    pub fn advance(&self) -> Advance {
        let seen = self.seen;
        let numbers = Numbers {
            partition: seen.partition,
            batch: seen.next_batch,
            incarnation: seen.incarnation + 1,
            from_offset: self.start_offset,
            next_offset: self.start_offset,
            first_seq: seen.next_seq,
            next_seq: seen.next_seq,
            recorded_at: self.now,
            ..Numbers::default()
        };
        let mut chain = Chain::after(&seen.chain_head);
        chain.acceptance(&AcceptanceRow {
            previous_position: seen.position,
            accepted_at: self.now,
            reason: self.reason,
            operator: self.operator,
        });
        Advance {
            numbers,
            chain_head: chain.close(&numbers),
            anchor: None,
        }
    }
}

impl Postgres {
    /// Begins a new incarnation of the partition, with a batch of its own that has no records. The lane
    /// that owns it notices within seconds.
    pub async fn accept(&mut self, acceptance: Acceptance<'_>) -> Result<(), Error> {
        let result = self.try_accept(acceptance).await;
        if result.is_err() {
            self.rollback().await;
        }
        result
    }

    async fn try_accept(&mut self, acceptance: Acceptance<'_>) -> Result<(), Error> {
        let partition = acceptance.seen.partition;
        let found = self.lock(&[partition], LockWait::Normal).await?[0];
        if found != acceptance.seen {
            return Err(Error::Retry(format!(
                "partition {partition} has moved to {} (incarnation {}) meanwhile",
                found.position, found.incarnation
            )));
        }
        begin_incarnation(self.transaction()?, acceptance).await?;
        self.commit().await
    }
}

async fn begin_incarnation(
    db_tx: &mut PgConnection,
    acceptance: Acceptance<'_>,
) -> Result<(), sqlx::Error> {
    let Acceptance {
        seen,
        start_offset,
        reason,
        operator,
        now,
    } = acceptance;
    let Advance {
        numbers,
        chain_head: head,
        ..
    } = acceptance.advance();
    sqlx::query!(
        "insert into millrace.batches (partition, batch, incarnation, from_offset, next_offset, first_seq,
             next_seq, posted, duplicate, rejected, refused, parked, discarded, skipped, recorded_at,
             chain_head)
         values ($1, $2, $3, $4, $4, $5, $5, 0, 0, 0, 0, 0, 0, 0, $6, $7)",
        numbers.partition,
        numbers.batch,
        numbers.incarnation,
        start_offset,
        numbers.first_seq,
        Micros(now) as _,
        &head[..]
    )
    .execute(&mut *db_tx)
    .await?;
    sqlx::query!(
        "insert into millrace.incarnations
             (partition, incarnation, batch, previous_position, start_offset, reason, operator, accepted_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        numbers.partition,
        numbers.incarnation,
        numbers.batch,
        seen.position,
        start_offset,
        reason,
        operator,
        Micros(now) as _
    )
    .execute(&mut *db_tx)
    .await?;
    sqlx::query!(
        "update millrace.positions set incarnation = $2, start_offset = $3, position = $3,
             next_batch = next_batch + 1, chain_head = $4, anchor_offset = null, anchor_timestamp = null,
             anchor_digest = null, updated_at = $5
         where partition = $1",
        numbers.partition,
        numbers.incarnation,
        start_offset,
        &head[..],
        Micros(now) as _
    )
    .execute(db_tx)
    .await?;
    Ok(())
}

/// A partition's position, and which database this is; none when nothing of the topic was ever read.
pub async fn read(connection: &mut PgConnection, partition: i32) -> Result<Option<Found>, Error> {
    let database = sqlx::query_scalar!("select database_id from millrace.log")
        .fetch_optional(&mut *connection)
        .await?;
    let position = read::found(connection, &[partition]).await?;
    let found = database.zip(position.into_iter().next());
    Ok(found.map(|(database, position)| Found { database, position }))
}
