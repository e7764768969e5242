//! Replay: open records go through the phases again.

use std::collections::HashSet;

use millrace_rules::{ParkReason, Reason, Verdict};

use crate::parking::{Error, Order, Remaining, Resolved, Selection, headers, settle};
use crate::pipeline::decide::decide;
use crate::pipeline::decode::{Culprits, Decoded, candidates, decode};
use crate::pipeline::memory::Memory;
use crate::pipeline::outcome::Resolution;
use crate::pipeline::plan::{Decided, Resolving, plan_replay};
use crate::planted::{self, Bug};
use crate::record::{BATCH_RECORDS_MAX, Batch, Incoming, Intake, LogRange};
use crate::store::{self, LockWait, OpenParked, Position, Store};

/// Applies the chosen records and all open ones of their keys, in order, as far as that is possible by now.
/// `clock` gives microseconds since 1970; the topic has `partitions`. Calls `progress` with what became of
/// the records so far, once per database transaction.
pub async fn replay(
    store: &mut impl Store,
    order: Order<'_>,
    partitions: i32,
    clock: impl Fn() -> i64,
    mut progress: impl FnMut(&Resolved),
) -> Result<Resolved, Error> {
    let mut run = Run {
        order,
        selection: order.selection.clone(),
        partitions,
        after_seq: -1,
        held: HashSet::new(),
        culprits: Culprits::new(),
        records_max: BATCH_RECORDS_MAX,
        resolved: Resolved::default(),
        connections: None,
    };
    let mut tries = 0;
    loop {
        let result = run.round(store, clock()).await;
        if !matches!(result, Ok(Round::Committed)) {
            store.rollback().await;
        }
        // The culprit is among them: fewer, until it is alone.
        if matches!(&result, Err(Error::Store(store::Error::Row(_)))) && run.records_max > 1 {
            run.records_max /= 2;
            continue;
        }
        match settle(store, order.partition, result, &mut tries).await? {
            Some(Round::Empty) => return Ok(run.resolved),
            None | Some(Round::Anew) => {}
            Some(Round::Committed | Round::Shown) => progress(&run.resolved),
        }
    }
}

/// What came of one database transaction.
enum Round {
    /// Nothing is left.
    Empty,
    /// It is in the ledger.
    Committed,
    /// It was only to be shown.
    Shown,
    /// More is wanted than was known, from the beginning.
    Anew,
}

struct Run<'o> {
    order: Order<'o>,
    /// With the keys of what was chosen so far: more of them may come in a later round.
    selection: Selection,
    partitions: i32,
    /// What was seen already.
    after_seq: i64,
    /// Keys of which a record stays parked.
    held: HashSet<Vec<u8>>,
    /// What the database refuses.
    culprits: Culprits,
    records_max: usize,
    resolved: Resolved,
    /// How many connections the store had opened when all this was found.
    connections: Option<u64>,
}

impl Run<'_> {
    async fn round(&mut self, store: &mut impl Store, now: i64) -> Result<Round, Error> {
        let partition = self.order.partition;
        let position = lock(store, partition).await?;
        self.follow(store.connections());
        let mut open = store
            .open_parked(partition, &self.selection, self.after_seq, self.records_max)
            .await?;
        if planted::has(Bug::ReplayOvertakes) {
            open.retain(|parked| parked.is_chosen);
        }
        let Some(last_seq) = open.last().map(|parked| parked.seq) else {
            return Ok(Round::Empty);
        };
        if self.is_overtaking(&open) {
            return Ok(Round::Anew);
        }
        let (behind, chosen): (Vec<_>, Vec<_>) = open.into_iter().partition(|parked| {
            parked
                .key
                .as_ref()
                .is_some_and(|key| self.held.contains(key))
        });
        let mut intake = Intake::default();
        for parked in &chosen {
            take(&mut intake, parked);
        }
        let batch = intake.batch(std::iter::once(LogRange {
            partition,
            incarnation: position.incarnation,
            from: position.position,
            next: position.position,
        }));
        let applied = self.apply(store, &batch, &chosen, &position, now).await;
        let fates = match applied {
            Err(Error::Store(store::Error::Row(detail))) if chosen.len() == 1 => {
                self.culprits.insert((partition, chosen[0].log_offset));
                return Err(Error::Store(store::Error::Retry(detail)));
            }
            other => other?,
        };
        let outcome = if self.order.dry_run {
            Round::Shown
        } else {
            store.commit().await?;
            Round::Committed
        };
        // Only now: what is not committed is tried afresh.
        self.after_seq = last_seq;
        self.records_max = BATCH_RECORDS_MAX;
        let keys = &mut self.selection.also_keys;
        keys.extend(chosen.iter().filter_map(|parked| parked.key.clone()));
        keys.sort_unstable();
        keys.dedup();
        for parked in behind {
            self.stays(&parked, ParkReason::Behind, BEHIND.into());
        }
        for (fate, place) in fates {
            let parked = &chosen[place];
            match fate {
                Fate::Resolved(name) => self.resolved.add(name),
                Fate::Stays(reason, detail) => {
                    self.held.extend(parked.key.clone());
                    self.stays(parked, reason, detail);
                }
            }
        }
        Ok(outcome)
    }

    fn stays(&mut self, parked: &OpenParked, reason: ParkReason, detail: String) {
        self.resolved.remains(Remaining {
            partition: parked.partition,
            log_offset: parked.log_offset,
            reason: reason.as_str(),
            detail,
        });
    }

    /// A key that is wanted only now (a record of it was parked meanwhile) may have earlier ones that were
    /// passed over: then everything begins anew, with that key.
    fn is_overtaking(&mut self, open: &[OpenParked]) -> bool {
        let passed_over = open.iter().filter(|parked| parked.has_earlier);
        let mut keys: Vec<_> = passed_over
            .filter_map(|parked| parked.key.clone())
            .filter(|key| !self.held.contains(key))
            .filter(|key| self.selection.also_keys.binary_search(key).is_err())
            .collect();
        if keys.is_empty() {
            return false;
        }
        let known = &mut self.selection.also_keys;
        known.append(&mut keys);
        known.sort_unstable();
        known.dedup();
        self.begin_anew();
        true
    }

    /// From the first open record on. What was resolved is not open any more.
    fn begin_anew(&mut self) {
        self.after_seq = -1;
        self.held.clear();
        self.resolved.forget_remaining();
        if self.order.dry_run {
            self.resolved = Resolved::default();
        }
    }

    /// Behind another connection the database may be an older one: what was done may be open again, and comes
    /// first.
    fn follow(&mut self, connections: u64) {
        let known = self.connections.replace(connections);
        if known.is_some_and(|known| known != connections) {
            self.begin_anew();
        }
    }

    /// Decides and writes; gives what becomes of each record.
    async fn apply(
        &mut self,
        store: &mut impl Store,
        batch: &Batch<'_>,
        chosen: &[OpenParked],
        position: &Position,
        now: i64,
    ) -> Result<Vec<(Fate, usize)>, Error> {
        let decoded = decode(batch, self.partitions, &self.culprits);
        let candidates = candidates(batch, &decoded);
        // The chosen records are what holds their keys.
        let free = Position {
            parked_open: 0,
            ..*position
        };
        let mut memory = Memory::default();
        let decisions = decide(store, &mut memory, &candidates, &[free], self.partitions).await?;
        let judged = Decided {
            batch,
            decoded: &decoded,
            candidates: &candidates,
            decisions: &decisions,
        };
        let parked_seqs: Vec<_> = chosen.iter().map(|parked| parked.seq).collect();
        let resolving = Resolving {
            parked_seqs: &parked_seqs,
            resolution: Resolution::Replayed,
            reason: self.order.reason,
            operator: self.order.operator,
        };
        let outcome = plan_replay(judged, position, resolving, now);
        if !outcome.resolutions.is_empty() && !self.order.dry_run {
            store.write(&outcome).await?;
        }
        let fates = decisions.verdicts.iter().zip(&decoded);
        Ok(fates
            .map(|(verdict, decoded)| Fate::of(*verdict, decoded))
            .zip(0..)
            .collect())
    }
}

const BEHIND: &str = "an earlier record of this key is parked";

enum Fate {
    Resolved(&'static str),
    Stays(ParkReason, String),
}

impl Fate {
    fn of(verdict: Verdict, decoded: &Decoded<'_>) -> Self {
        match (verdict, decoded) {
            (Verdict::Posted, _) => Self::Resolved("posted"),
            (Verdict::Duplicate, _) => Self::Resolved("duplicate"),
            (Verdict::Rejected(reason), _) => Self::Resolved(Reason::as_str(reason)),
            (Verdict::Parked(reason), Decoded::Parked { detail, .. })
                if reason != ParkReason::Behind =>
            {
                Self::Stays(reason, detail.clone())
            }
            (Verdict::Parked(reason), _) => Self::Stays(reason, BEHIND.to_owned()),
        }
    }
}

/// Begins the database transaction.
pub(super) async fn lock(store: &mut impl Store, partition: i32) -> Result<Position, Error> {
    let positions = store.lock(&[partition], LockWait::Normal).await?;
    positions
        .first()
        .copied()
        .ok_or(Error::NoPartition(partition))
}

/// Byte for byte as it came.
fn take(intake: &mut Intake, parked: &OpenParked) {
    intake.push(Incoming {
        partition: parked.partition,
        offset: parked.log_offset,
        timestamp: parked.record_timestamp,
        key: parked.key.as_deref(),
        value: parked.value.as_deref(),
        headers: headers(&parked.headers),
    });
}
