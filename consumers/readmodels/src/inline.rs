//! Folding inside the ledger's batch.

use std::time::Instant;

use sqlx::PgConnection;

use crate::error::Error;
use crate::fold::{Range, count, fold_and_advance, seqs};
use crate::model::Model;
use crate::positions;

/// A lane folds at most this many `seq` of a partition on top of its batch: ten full batches, some
/// 15 ms of a model that belongs inline. What is further behind is left to the background workers,
/// which take it up beyond the same mark.
pub const INLINE_GAP_MAX: i64 = 50_000;

/// What an inline fold did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inline {
    /// Slices written.
    pub slices: u64,
    /// Partitions brought up to their end.
    pub folded: usize,
    /// Partitions left behind: too far, failed a moment ago, or in another worker's hands.
    pub behind: usize,
}

/// A fold that did not work, and the partitions that it was of.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// What happened.
    pub error: Error,
    /// The partitions to leave behind.
    pub partitions: Vec<i32>,
}

/// Brings a model up to the given ends, (partition, next `seq`), inside the caller's database
/// transaction, which holds the partitions' locks and has written everything below the ends. Waits
/// for nobody's position. The caller wraps it in a savepoint: after an error it rolls back to it, calls
/// [`crate::record_failure`] for its partitions and goes on. A partition that has failed is tried alone
/// when its time has come, so that the others are rid of it.
///
/// The connection's `search_path` is `millrace`; `jit` should be off, `lock_timeout` short.
pub async fn fold_inline(
    connection: &mut PgConnection,
    model: &Model,
    ends: &[(i32, i64)],
    gap_max: i64,
) -> Result<Inline, Failed> {
    let started = Instant::now();
    let partitions: Vec<_> = ends.iter().map(|(partition, _)| *partition).collect();
    let within = match within(connection, model, ends, gap_max).await {
        Ok(within) => within,
        Err(error) => return Err(Failed { error, partitions }),
    };
    let ranges: Vec<_> = within.iter().copied().filter(|r| r.seqs() != 0).collect();
    let mut slices = 0;
    if !ranges.is_empty() {
        slices = match fold_checked(connection, model, &ranges).await {
            Ok(slices) => slices,
            Err(error) => {
                let partitions = ranges.iter().map(|range| range.partition).collect();
                return Err(Failed { error, partitions });
            }
        };
        count(model, seqs(&ranges), slices, started.elapsed());
    }
    Ok(Inline {
        slices,
        folded: within.len(),
        behind: ends.len() - within.len(),
    })
}

/// The same for what is without trouble, in one statement: partitions that are there, that nobody else has in hand
/// and where no fold has failed. Gives whether those were all; if not, [`fold_inline`] sees to the rest. After an error
/// nothing of the caller's database transaction counts: there is no savepoint.
pub async fn fold_untroubled(
    connection: &mut PgConnection,
    model: &Model,
    ends: &[(i32, i64)],
    gap_max: i64,
) -> Result<bool, Error> {
    let started = Instant::now();
    let (partitions, next_seqs): (Vec<_>, Vec<_>) = ends.iter().copied().unzip();
    let (folded, seqs, slices): (i64, i64, i64) = sqlx::query_as(model.fold_up_to.clone())
        .bind(model.name)
        .bind(partitions)
        .bind(next_seqs)
        .bind(gap_max)
        .fetch_one(connection)
        .await?;
    if seqs != 0 {
        let [seqs, slices] = [seqs, slices].map(i64::unsigned_abs);
        count(model, seqs, slices, started.elapsed());
    }
    Ok(usize::try_from(folded).ok() == Some(ends.len()))
}

/// The ranges to fold now, their positions locked.
async fn within(
    connection: &mut PgConnection,
    model: &Model,
    ends: &[(i32, i64)],
    gap_max: i64,
) -> Result<Vec<Range>, Error> {
    let partitions: Vec<_> = ends.iter().map(|(partition, _)| *partition).collect();
    let mut found = positions::lock(connection, model, &partitions).await?;
    if found.len() < ends.len() {
        found.extend(positions::create(connection, model, &partitions).await?);
    }
    let ranges = found.into_iter().filter_map(|locked| {
        let (_, next_seq) = *ends.iter().find(|(of, _)| *of == locked.partition)?;
        let range = Range {
            partition: locked.partition,
            from_seq: locked.seq,
            next_seq,
        };
        (range.seqs() <= gap_max).then_some((locked.has_failed, range))
    });
    let (failed, healthy): (Vec<_>, Vec<_>) = ranges.partition(|(has_failed, _)| *has_failed);
    let chosen = match failed.first() {
        Some(one) => vec![*one],
        None => healthy,
    };
    Ok(chosen.into_iter().map(|(_, range)| range).collect())
}

async fn fold_checked(
    connection: &mut PgConnection,
    model: &Model,
    ranges: &[Range],
) -> Result<u64, Error> {
    if let Some(range) = ranges.iter().find(|range| range.seqs() < 0) {
        return Err(Error::Broken(format!(
            "partition {} is folded up to seq {}, but ends at {}",
            range.partition, range.from_seq, range.next_seq
        )));
    }
    fold_and_advance(connection, model, ranges).await
}
