//! What a batch writes.

use millrace_readmodels::{Failed, INLINE_GAP_MAX, Mode, Model, record_failure};
use sqlx::{AssertSqlSafe, PgConnection};
use tracing::warn;

use crate::kafka::log::Bounds;
use crate::pipeline::outcome::ResolutionRow;
use crate::store::copy::Rows;
use crate::store::error::{During, Error};
use crate::store::postgres::{LOCK_TIMEOUT, LOCK_TIMEOUT_SHORT};
use crate::store::{Advance, Micros, PartitionStatus};

/// As many rows are encoded and sent at a time: about 64 KiB, so that the server works on them while the next are
/// encoded, and no buffer has to hold a batch.
const COPY_ROWS: usize = 256;

/// Copies rows in; `encode` appends some of them to the buffer.
pub(super) async fn copy<R>(
    connection: &mut PgConnection,
    statement: &'static str,
    during: During,
    rows: &[R],
    buffer: &mut Rows,
    encode: impl Fn(&mut Rows, &[R]),
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let copied = async {
        let mut copy = connection.copy_in_raw(statement).await?;
        buffer.clear();
        buffer.begin();
        for piece in rows.chunks(COPY_ROWS) {
            encode(buffer, piece);
            copy.send(buffer.as_bytes()).await?;
            buffer.clear();
        }
        buffer.end();
        copy.send(buffer.as_bytes()).await?;
        copy.finish().await
    };
    copied
        .await
        .map(drop)
        .map_err(|error| Error::from_sqlx(&error, during))
}

/// What became of parked records.
pub(super) async fn resolutions(
    connection: &mut PgConnection,
    rows: &[ResolutionRow<'_>],
    recorded_at: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into millrace.parked_resolutions
             (partition, seq, parked_seq, resolution, reason, operator, recorded_at)
         select partition, seq, parked_seq, resolution, reason, operator, $7
         from unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])
             as r(partition, seq, parked_seq, resolution, reason, operator)
         order by partition, seq",
        &rows.iter().map(|row| row.partition).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.parked_seq).collect::<Vec<_>>(),
        &rows
            .iter()
            .map(|row| row.resolution.as_str())
            .collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.reason).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.operator).collect::<Vec<_>>() as _,
        Micros(recorded_at) as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One row of `batches` per partition, and the new positions, in one statement.
#[expect(clippy::too_many_lines, reason = "one statement with many columns")]
pub(super) async fn advances(
    connection: &mut PgConnection,
    advances: &[Advance],
) -> Result<(), Error> {
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

fn inline_models() -> impl Iterator<Item = &'static Model> {
    let models = millrace_readmodels::all().iter();
    models.filter(|model| model.mode == Mode::Inline)
}

/// Folds the inline read models where nothing is wrong with them. Gives whether that was everywhere; when one fails,
/// the batch has failed.
pub(super) async fn fold_untroubled(
    connection: &mut PgConnection,
    advances: &[Advance],
) -> Result<bool, Error> {
    let ends = ends(advances);
    for model in inline_models() {
        let gap_max = INLINE_GAP_MAX;
        match millrace_readmodels::fold_untroubled(connection, model, &ends, gap_max).await {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(millrace_readmodels::Error::Unavailable(error)) => return Err(error.into()),
            Err(millrace_readmodels::Error::Broken(failure)) => return Err(Error::Retry(failure)),
        }
    }
    Ok(true)
}

/// Folds the inline read models. A model whose fold fails is left behind; the ledger goes on. Gives whether none is
/// behind anywhere.
pub(super) async fn fold_inline(
    connection: &mut PgConnection,
    advances: &[Advance],
) -> Result<bool, Error> {
    let ends = ends(advances);
    let mut is_up_to_date = true;
    for model in inline_models() {
        // Whoever works on the model's table (an index, a migration) is not waited for with the
        // partitions locked.
        let begin = format!("savepoint fold; set local lock_timeout = '{LOCK_TIMEOUT_SHORT}'");
        sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(&mut *connection)
            .await?;
        match millrace_readmodels::fold_inline(connection, model, &ends, INLINE_GAP_MAX).await {
            Ok(done) => {
                is_up_to_date &= done.behind == 0;
                let end =
                    format!("release savepoint fold; set local lock_timeout = '{LOCK_TIMEOUT}'");
                sqlx::raw_sql(AssertSqlSafe(end))
                    .execute(&mut *connection)
                    .await?;
            }
            Err(Failed {
                error: millrace_readmodels::Error::Unavailable(error),
                ..
            }) => return Err(error.into()),
            Err(Failed {
                error: millrace_readmodels::Error::Broken(failure),
                partitions,
            }) => {
                is_up_to_date = false;
                sqlx::raw_sql("rollback to savepoint fold")
                    .execute(&mut *connection)
                    .await?;
                leave_behind(connection, model, &partitions, &failure).await?;
            }
        }
    }
    Ok(is_up_to_date)
}

/// Where the partitions end: the next `seq` of each.
fn ends(advances: &[Advance]) -> Vec<(i32, i64)> {
    let numbers = advances.iter().map(|advance| advance.numbers);
    numbers
        .map(|numbers| (numbers.partition, numbers.next_seq))
        .collect()
}

async fn leave_behind(
    connection: &mut PgConnection,
    model: &Model,
    partitions: &[i32],
    failure: &str,
) -> Result<(), Error> {
    for partition in partitions {
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

pub(super) async fn publish_status(
    connection: &mut PgConnection,
    owner: &str,
    statuses: &[PartitionStatus],
) -> Result<(), Error> {
    let bound = |field: fn(Bounds) -> i64| {
        let bounds = statuses.iter().map(|status| status.bounds.map(field));
        bounds.collect::<Vec<_>>()
    };
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
        &bound(|b| b.start) as _,
        &bound(|b| b.end) as _,
        &oldest as _,
        &updated as _
    )
    .execute(connection)
    .await?;
    Ok(())
}
