//! What operators and failovers do to the database, what is left to do, and everything that is stored.

use std::rc::Rc;

use millrace_ledger::chain::{AcceptanceRow, Chain, Numbers};
use millrace_ledger::store::Advance;
use millrace_ledger::store::positions::Acceptance;

use super::Oracle;
use crate::backend::PolicyChange;
use crate::broker::{Broker, place};
use crate::rows::Rows;
use crate::tables::Tables;

impl Oracle {
    /// An operator has begun a new incarnation.
    pub(crate) fn accepted(&mut self, acceptance: &Acceptance<'_>) {
        let seen = acceptance.seen;
        let numbers = Numbers {
            partition: seen.partition,
            batch: seen.next_batch,
            incarnation: seen.incarnation + 1,
            from_offset: acceptance.start_offset,
            next_offset: acceptance.start_offset,
            first_seq: seen.next_seq,
            next_seq: seen.next_seq,
            recorded_at: acceptance.now,
            ..Numbers::default()
        };
        let mut chain = Chain::after(&seen.chain_head);
        chain.acceptance(&AcceptanceRow {
            previous_position: seen.position,
            accepted_at: acceptance.now,
            reason: acceptance.reason,
            operator: acceptance.operator,
        });
        let chain_head = chain.close(&numbers);
        let advance = Advance {
            numbers,
            chain_head,
            anchor: None,
        };
        let partition = &mut self.partitions[place(seen.partition)];
        partition.incarnation = numbers.incarnation;
        partition.anchor = None;
        partition.advance(&advance);
        self.history.push(Rc::new(Rows {
            advances: vec![advance],
            ..Rows::default()
        }));
    }

    /// An operator has set a policy.
    pub(crate) fn set_policy(&mut self, change: &PolicyChange) {
        self.policies.set(change);
    }

    /// The state that the database may go back to.
    pub(crate) fn keep(&mut self) {
        self.kept = None;
        self.kept = Some(Box::new(self.clone()));
    }

    /// The database has gone back to it.
    pub(crate) fn go_back(&mut self) -> bool {
        let Some(kept) = self.kept.take() else {
            return false;
        };
        let counts = (self.applied, self.resolved);
        *self = (*kept).clone();
        (self.applied, self.resolved) = counts;
        self.kept = Some(kept);
        true
    }

    /// The database takes from now on what it refused.
    pub(crate) fn mend(&mut self) {
        self.policies.is_mended = true;
    }

    /// Whether the database has a position of any partition.
    pub(crate) fn has_begun(&self) -> bool {
        self.partitions.iter().any(|partition| partition.has_begun)
    }

    /// The partitions of which parked records wait for an operator.
    pub(crate) fn waiting(&self) -> Vec<i32> {
        let partitions = (0..).zip(&self.partitions);
        let waiting = partitions.filter(|(_, partition)| !partition.open.is_empty());
        waiting.map(|(number, _)| number).collect()
    }

    /// What is left to apply: (partition, position, end of the log).
    pub(crate) fn left(&self, broker: &Broker) -> Vec<(i32, i64, i64)> {
        let partitions = (0..).zip(&self.partitions).zip(&broker.partitions);
        partitions
            .filter(|((_, partition), log)| !partition.has_begun || partition.position != log.end)
            .map(|((number, partition), log)| (number, partition.position, log.end))
            .collect()
    }

    /// Everything that is stored must be what was seen committed.
    pub(crate) fn compare(&self, tables: &Tables) -> Result<(), String> {
        for (number, partition) in (0..).zip(&self.partitions) {
            if let Some(position) = tables.positions.get(&number) {
                partition.compare(position)?;
            }
        }
        let mut counted = [0; 5];
        for rows in &self.history {
            let same =
                rows.ledger
                    .iter()
                    .all(|row| tables.ledger.get(&(row.partition, row.seq)) == Some(row))
                    && rows.refused.iter().all(|row| {
                        tables.refused.get(&(row.raw.partition, row.raw.seq)) == Some(row)
                    })
                    && rows
                        .parked
                        .iter()
                        .all(|row| tables.parked.get(&(row.partition, row.seq)) == Some(row))
                    && rows.resolutions.iter().all(|row| {
                        tables.resolutions.get(&(row.partition, row.parked_seq)) == Some(row)
                    })
                    && rows.advances.iter().all(|advance| {
                        let key = (advance.numbers.partition, advance.numbers.batch);
                        tables.batches.get(&key) == Some(&(advance.numbers, advance.chain_head))
                    });
            if !same {
                return Err(format!("these rows are not in the tables: {rows:?}"));
            }
            let lengths = [
                rows.ledger.len(),
                rows.refused.len(),
                rows.parked.len(),
                rows.resolutions.len(),
                rows.advances.len(),
            ];
            counted
                .iter_mut()
                .zip(lengths)
                .for_each(|(sum, length)| *sum += length);
        }
        let found = [
            tables.ledger.len(),
            tables.refused.len(),
            tables.parked.len(),
            tables.resolutions.len(),
            tables.batches.len(),
        ];
        if found != counted {
            return Err(format!(
                "the tables have {found:?} rows, more than were committed"
            ));
        }
        for (key, slice) in &tables.balances {
            self.compare_slice(key)?;
            if self.stored.get(key) != Some(slice) {
                return Err(format!("the slice {key:?} is stored as {slice:?}"));
            }
        }
        self.slices
            .keys()
            .try_for_each(|key| self.compare_slice(key))
    }
}
