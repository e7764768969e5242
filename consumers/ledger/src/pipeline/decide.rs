//! Read and decide: asks the store for what the decision needs, until nothing is short.

use millrace_rules::{Book, Candidate, Content, Decisions, Funds, Verdict};

use crate::pipeline::memory::Memory;
use crate::planted::{self, Bug};
use crate::store::{Error, Position, Store};

/// The verdicts of the candidates. The partitions are locked at `positions`; the topic has
/// `partitions`.
pub async fn decide<'d>(
    store: &mut impl Store,
    memory: &mut Memory,
    candidates: &[Candidate<'d>],
    positions: &[Position],
    partitions: i32,
) -> Result<Decisions<'d>, Error> {
    memory.reconcile(positions);
    while let Some(accounts) = memory.missing_policies(candidates) {
        let policies = store.policies(&accounts).await?;
        memory.learn_policies(&accounts, policies);
    }
    let mut book = Book::default();
    memory.fill(&mut book, candidates, partitions);
    read_known(store, &mut book, candidates).await?;
    read_held(store, &mut book, candidates, positions).await?;
    loop {
        // Each round makes at least one more account fresh, so there are at most as many rounds as
        // accounts; in practice two.
        let mut decisions = millrace_rules::decide(&book, candidates);
        if planted::has(Bug::NoDedupe) {
            apply_twice(&book, candidates, &mut decisions);
        }
        if decisions.short.is_empty() {
            return Ok(decisions);
        }
        let balances = store.funds(&decisions.short).await?;
        for (account, balance) in decisions.short.iter().zip(balances) {
            book.funds.insert(
                *account,
                Funds {
                    balance,
                    fresh: true,
                },
            );
        }
    }
}

/// A planted bug: what is a duplicate only within the batch is posted.
fn apply_twice(book: &Book<'_>, candidates: &[Candidate<'_>], decisions: &mut Decisions<'_>) {
    for (candidate, verdict) in candidates.iter().zip(&mut decisions.verdicts) {
        if let Content::Transfer(transfer) = &candidate.content
            && *verdict == Verdict::Duplicate
            && !book.known.contains_key(&transfer.id)
        {
            *verdict = Verdict::Posted;
        }
    }
}

async fn read_known(
    store: &mut impl Store,
    book: &mut Book<'_>,
    candidates: &[Candidate<'_>],
) -> Result<(), Error> {
    let ids: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| match &candidate.content {
            Content::Transfer(transfer) => Some(transfer.id),
            Content::Refused(_) | Content::Parked(_) => None,
        })
        .collect();
    if !ids.is_empty() && !planted::has(Bug::ForgetIds) {
        book.known.extend(store.known(&ids).await?);
    }
    Ok(())
}

async fn read_held<'d>(
    store: &mut impl Store,
    book: &mut Book<'d>,
    candidates: &[Candidate<'d>],
    positions: &[Position],
) -> Result<(), Error> {
    let open = |partition| {
        positions
            .iter()
            .any(|p| p.partition == partition && p.parked_open > 0)
    };
    let is_open = positions.iter().any(|position| position.parked_open > 0);
    if !is_open || planted::has(Bug::ParkWithoutHold) {
        return Ok(());
    }
    let mut keys: Vec<(i32, &'d [u8])> = candidates
        .iter()
        .filter(|candidate| open(candidate.partition))
        .filter_map(|candidate| Some((candidate.partition, candidate.key?)))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    for (partition, key) in store.held(&keys).await? {
        let place = keys.binary_search_by(|(p, k)| (*p, *k).cmp(&(partition, &key[..])));
        if let Ok(place) = place {
            book.held.insert(keys[place]);
        }
    }
    Ok(())
}
