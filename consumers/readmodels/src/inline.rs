//! Folding inside the ledger's batch.

use std::time::Instant;

use sqlx::PgConnection;

use crate::error::Error;
use crate::fold::{Range, count, fold_and_advance};
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

/// Brings a model up to the given ends, (partition, next `seq`), inside the caller's database
/// transaction, which holds the partitions' locks and has written everything below the ends. Waits
/// for nobody. The caller wraps it in a savepoint: after an error it rolls back to it, calls
/// [`crate::record_failure`] and goes on.
///
/// The connection's `search_path` is `millrace`; `jit` should be off.
pub async fn fold_inline(
    connection: &mut PgConnection,
    model: &Model,
    ends: &[(i32, i64)],
    gap_max: i64,
) -> Result<Inline, Error> {
    let started = Instant::now();
    let partitions: Vec<_> = ends.iter().map(|(partition, _)| *partition).collect();
    let mut found = positions::lock(connection, model, &partitions).await?;
    if found.len() < ends.len() {
        found.extend(positions::create(connection, model, &partitions).await?);
    }
    let within: Vec<_> = found
        .into_iter()
        .filter_map(|(partition, from_seq)| {
            let (_, next_seq) = *ends.iter().find(|(of, _)| *of == partition)?;
            Some(Range {
                partition,
                from_seq,
                next_seq,
            })
        })
        .filter(|range| range.seqs() <= gap_max)
        .collect();
    let ranges: Vec<_> = within.iter().copied().filter(|r| r.seqs() != 0).collect();
    if let Some(range) = ranges.iter().find(|range| range.seqs() < 0) {
        return Err(Error::Broken(format!(
            "partition {} is folded up to seq {}, but ends at {}",
            range.partition, range.from_seq, range.next_seq
        )));
    }
    let mut slices = 0;
    if !ranges.is_empty() {
        slices = fold_and_advance(connection, model, &ranges).await?;
        count(model, &ranges, slices, started.elapsed());
    }
    Ok(Inline {
        slices,
        folded: within.len(),
        behind: ends.len() - within.len(),
    })
}
