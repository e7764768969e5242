//! The decision: a pure function from (state, records) to verdicts.
//!
//! [`Book`] is what was read under the partitions' locks; [`decide`] walks the records of a batch in
//! log order over a working copy of it. Funds may be known only as a lower bound: when that is not
//! enough for a debit, the account is listed in [`Decisions::short`], the caller reads its slices
//! afresh and decides again. Only a decision with nothing short counts.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::{AccountId, Amount, Currency, ParkReason, Reason, Status, Verdict};

type Map<K, V> = HashMap<K, V, RandomState>;

/// How far below zero a balance may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Any debit is covered.
    Unlimited,
    /// The balance never goes below minus this many minor units.
    Overdraft(i64),
}

/// What is known of the money of one account in one currency, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funds {
    /// The balance, or a lower bound of it: credits committed elsewhere may be missing.
    pub balance: i128,
    /// Whether the slices were read afresh for this batch.
    pub fresh: bool,
}

/// A valid transaction, reduced to what the decision needs.
#[derive(Debug, Clone, Copy)]
pub struct Transfer<'a> {
    /// The id's bytes.
    pub id: [u8; 16],
    /// SHA-256 of the canonical content.
    pub digest: [u8; 32],
    /// Where the money comes from.
    pub debit: &'a AccountId<'a>,
    /// Where the money goes to.
    pub credit: &'a AccountId<'a>,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub currency: Currency,
}

/// What decoding, validation and routing made of a record.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A valid transaction in its right place.
    Transfer(Transfer<'a>),
    /// Already known to be refused (invalid or misrouted).
    Refused(Reason),
    /// Already known to need an operator.
    Parked(ParkReason),
}

/// One record in front of the decision.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The record's partition.
    pub partition: i32,
    /// The raw Kafka key; a record without a key has no order to keep.
    pub key: Option<&'a [u8]>,
    /// What it says.
    pub content: Content<'a>,
}

/// Everything the decision knows. Absent entries mean: id unknown, account open, limit unset, funds
/// unknown, key not held.
#[derive(Debug, Default)]
pub struct Book<'a> {
    /// Digest by id, of every id of the batch that has a verdict already.
    pub known: Map<[u8; 16], [u8; 32]>,
    /// Status of the accounts that are not open.
    pub statuses: Map<&'a str, Status>,
    /// Limits of single accounts, for one currency or for all (`None`).
    pub limits: Map<(&'a str, Option<Currency>), Limit>,
    /// The limit of all other accounts, for one currency or for all (`None`).
    pub default_limits: Map<Option<Currency>, Limit>,
    /// Money of limited accounts.
    pub funds: Map<(&'a str, Currency), Funds>,
    /// (partition, key) with open parked records.
    pub held: HashSet<(i32, &'a [u8]), RandomState>,
}

/// The outcome of [`decide`].
#[derive(Debug)]
pub struct Decisions<'a> {
    /// One verdict per candidate, in their order.
    pub verdicts: Vec<Verdict>,
    /// Limited accounts whose funds must be read afresh before the verdicts count; sorted.
    pub short: Vec<(&'a str, Currency)>,
    /// The money of limited accounts after the batch.
    pub funds: Map<(&'a str, Currency), Funds>,
}

impl Book<'_> {
    /// The limit that applies to debits of `account`: the account's for the currency, the account's
    /// for all, the default for the currency, the default for all, unlimited.
    pub fn limit(&self, account: &AccountId<'_>, currency: Currency) -> Limit {
        if (self.limits.is_empty() && self.default_limits.is_empty()) || account.is_external() {
            return Limit::Unlimited;
        }
        let id = account.as_str();
        (self.limits.get(&(id, Some(currency))))
            .or_else(|| self.limits.get(&(id, None)))
            .or_else(|| self.default_limits.get(&Some(currency)))
            .or_else(|| self.default_limits.get(&None))
            .copied()
            .unwrap_or(Limit::Unlimited)
    }

    fn status(&self, account: &AccountId<'_>) -> Status {
        if self.statuses.is_empty() {
            return Status::Open;
        }
        self.statuses
            .get(account.as_str())
            .copied()
            .unwrap_or_default()
    }

    fn account_reason(&self, transfer: &Transfer<'_>) -> Option<Reason> {
        let debit = self.status(transfer.debit);
        if debit == Status::Closed {
            Some(Reason::DebitAccountClosed)
        } else if self.status(transfer.credit) == Status::Closed {
            Some(Reason::CreditAccountClosed)
        } else if debit == Status::Frozen {
            Some(Reason::DebitAccountFrozen)
        } else {
            None
        }
    }
}

/// Decides the candidates in order. See the module's words on [`Decisions::short`].
pub fn decide<'a>(book: &Book<'a>, candidates: &[Candidate<'a>]) -> Decisions<'a> {
    let mut pass = Pass {
        book,
        bound: Map::with_capacity_and_hasher(candidates.len(), RandomState::default()),
        held: HashSet::default(),
        funds: book.funds.clone(),
        short: Vec::new(),
    };
    let verdicts = candidates
        .iter()
        .map(|candidate| pass.verdict(candidate))
        .collect();
    pass.short.sort_unstable();
    pass.short.dedup();
    Decisions {
        verdicts,
        short: pass.short,
        funds: pass.funds,
    }
}

/// One walk over a batch: the book and what the batch itself has changed so far.
struct Pass<'a, 'b> {
    book: &'b Book<'a>,
    bound: Map<[u8; 16], [u8; 32]>,
    held: HashSet<(i32, &'a [u8]), RandomState>,
    funds: Map<(&'a str, Currency), Funds>,
    short: Vec<(&'a str, Currency)>,
}

impl<'a> Pass<'a, '_> {
    fn verdict(&mut self, candidate: &Candidate<'a>) -> Verdict {
        if self.is_held(candidate) {
            return Verdict::Parked(ParkReason::Behind);
        }
        match candidate.content {
            Content::Parked(reason) => {
                if let Some(key) = candidate.key {
                    self.held.insert((candidate.partition, key));
                }
                Verdict::Parked(reason)
            }
            Content::Refused(reason) => Verdict::Rejected(reason),
            Content::Transfer(transfer) => self.transfer(&transfer),
        }
    }

    fn is_held(&self, candidate: &Candidate<'a>) -> bool {
        if self.held.is_empty() && self.book.held.is_empty() {
            return false;
        }
        candidate.key.is_some_and(|key| {
            let place = (candidate.partition, key);
            self.held.contains(&place) || self.book.held.contains(&place)
        })
    }

    fn transfer(&mut self, transfer: &Transfer<'a>) -> Verdict {
        if let Some(digest) = self
            .book
            .known
            .get(&transfer.id)
            .or_else(|| self.bound.get(&transfer.id))
        {
            return if *digest == transfer.digest {
                Verdict::Duplicate
            } else {
                Verdict::Rejected(Reason::IdConflict)
            };
        }
        self.bound.insert(transfer.id, transfer.digest);
        if let Some(reason) = self.book.account_reason(transfer) {
            return Verdict::Rejected(reason);
        }
        if !self.is_covered(transfer) {
            return Verdict::Rejected(Reason::InsufficientFunds);
        }
        self.move_money(transfer);
        Verdict::Posted
    }

    fn is_covered(&mut self, transfer: &Transfer<'a>) -> bool {
        let Limit::Overdraft(overdraft) = self.book.limit(transfer.debit, transfer.currency) else {
            return true;
        };
        let account = (transfer.debit.as_str(), transfer.currency);
        let funds = self.funds.get(&account).copied();
        let Funds { balance, fresh } = funds.unwrap_or(Funds {
            balance: 0,
            fresh: false,
        });
        let left = balance.saturating_sub(transfer.amount.wide());
        let covered = funds.is_some() && left >= i128::from(overdraft).saturating_neg();
        if !covered && !fresh {
            self.short.push(account);
        }
        covered
    }

    fn move_money(&mut self, transfer: &Transfer<'a>) {
        if self.funds.is_empty() {
            return;
        }
        let amount = transfer.amount.wide();
        if let Some(funds) = self
            .funds
            .get_mut(&(transfer.debit.as_str(), transfer.currency))
        {
            funds.balance = funds.balance.saturating_sub(amount);
        }
        if let Some(funds) = self
            .funds
            .get_mut(&(transfer.credit.as_str(), transfer.currency))
        {
            funds.balance = funds.balance.saturating_add(amount);
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the model of the tests is not production code"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(id: &'static str) -> AccountId<'static> {
        AccountId::parse(id.into()).unwrap()
    }

    fn eur() -> Currency {
        Currency::parse("EUR").unwrap()
    }

    fn transfer<'a>(
        id: u8,
        debit: &'a AccountId<'a>,
        credit: &'a AccountId<'a>,
        amount: i64,
    ) -> Candidate<'a> {
        let content = Content::Transfer(Transfer {
            id: [id; 16],
            digest: [id; 32],
            debit,
            credit,
            amount: Amount::new(amount).unwrap(),
            currency: eur(),
        });
        Candidate {
            partition: 0,
            key: Some(debit.as_str().as_bytes()),
            content,
        }
    }

    #[test]
    fn statuses_in_order_of_precedence() {
        let (a, b) = (account("a"), account("b"));
        for (debit, credit, expected) in [
            (Status::Open, Status::Open, Verdict::Posted),
            (Status::Open, Status::Frozen, Verdict::Posted),
            (
                Status::Frozen,
                Status::Open,
                Verdict::Rejected(Reason::DebitAccountFrozen),
            ),
            (
                Status::Frozen,
                Status::Closed,
                Verdict::Rejected(Reason::CreditAccountClosed),
            ),
            (
                Status::Closed,
                Status::Closed,
                Verdict::Rejected(Reason::DebitAccountClosed),
            ),
        ] {
            let mut book = Book::default();
            book.statuses.insert("a", debit);
            book.statuses.insert("b", credit);
            assert_eq!(
                decide(&book, &[transfer(1, &a, &b, 1)]).verdicts,
                [expected]
            );
        }
    }

    #[test]
    fn a_rejected_id_stays_bound() {
        let (a, b) = (account("a"), account("b"));
        let mut book = Book::default();
        book.statuses.insert("a", Status::Frozen);
        let retry = [transfer(1, &a, &b, 1), transfer(1, &a, &b, 1)];
        assert_eq!(
            decide(&book, &retry).verdicts,
            [
                Verdict::Rejected(Reason::DebitAccountFrozen),
                Verdict::Duplicate
            ]
        );
    }

    #[test]
    fn same_id_other_content_is_a_conflict() {
        let (a, b) = (account("a"), account("b"));
        let mut book = Book::default();
        book.known.insert([1; 16], [9; 32]);
        assert_eq!(
            decide(&book, &[transfer(1, &a, &b, 1)]).verdicts,
            [Verdict::Rejected(Reason::IdConflict)]
        );
    }

    #[test]
    fn a_parked_record_holds_its_key_in_its_partition_only() {
        let (a, b) = (account("a"), account("b"));
        let bad = Candidate {
            partition: 0,
            key: Some(b"a"),
            content: Content::Parked(ParkReason::Undecodable),
        };
        let elsewhere = Candidate {
            partition: 1,
            ..transfer(3, &a, &b, 1)
        };
        let keyless = Candidate { key: None, ..bad };
        let records = [
            keyless,
            bad,
            transfer(1, &a, &b, 1),
            transfer(2, &b, &a, 1),
            elsewhere,
            keyless,
        ];
        let undecodable = Verdict::Parked(ParkReason::Undecodable);
        assert_eq!(
            decide(&Book::default(), &records).verdicts,
            [
                undecodable,
                undecodable,
                Verdict::Parked(ParkReason::Behind),
                Verdict::Posted,
                Verdict::Posted,
                undecodable
            ]
        );
    }

    #[test]
    fn the_nearest_limit_applies_and_externals_have_none() {
        let (a, b, world) = (account("a"), account("b"), account("external:w"));
        let mut book = Book::default();
        assert_eq!(book.limit(&a, eur()), Limit::Unlimited);
        book.default_limits.insert(None, Limit::Overdraft(1));
        assert_eq!(book.limit(&a, eur()), Limit::Overdraft(1));
        book.default_limits.insert(Some(eur()), Limit::Overdraft(2));
        assert_eq!(book.limit(&a, eur()), Limit::Overdraft(2));
        book.limits.insert(("a", None), Limit::Overdraft(3));
        assert_eq!(book.limit(&a, eur()), Limit::Overdraft(3));
        book.limits.insert(("a", Some(eur())), Limit::Unlimited);
        assert_eq!(book.limit(&a, eur()), Limit::Unlimited);
        assert_eq!(book.limit(&b, eur()), Limit::Overdraft(2));
        assert_eq!(book.limit(&world, eur()), Limit::Unlimited);
    }

    #[test]
    fn unknown_funds_are_asked_for_and_fresh_ones_decide() {
        let (a, b) = (account("a"), account("b"));
        let mut book = Book::default();
        book.default_limits.insert(None, Limit::Overdraft(10));
        let records = [transfer(1, &a, &b, 15), transfer(2, &a, &b, 1)];
        assert_eq!(decide(&book, &records).short, [("a", eur())]);
        book.funds.insert(
            ("a", eur()),
            Funds {
                balance: 5,
                fresh: true,
            },
        );
        let decisions = decide(&book, &records);
        assert_eq!(decisions.short, []);
        assert_eq!(
            decisions.verdicts,
            [
                Verdict::Posted,
                Verdict::Rejected(Reason::InsufficientFunds)
            ]
        );
        assert_eq!(decisions.funds[&("a", eur())].balance, -10);
    }

    const IDS: [&str; 4] = ["a", "b", "c", "external:w"];

    proptest! {
        /// The loop of the ledger (decide, read what is short, decide again) gives the verdicts of a
        /// sequential model that always sees the true balances, and never overdraws.
        #[test]
        fn agrees_with_a_sequential_model(
            moves in prop::collection::vec((0usize..4, 0usize..4, 1i64..50, 0u8..40), 1..60),
            start in prop::array::uniform3(0i128..60),
            bounds in prop::array::uniform3(0i128..60),
            overdraft in 0i64..20,
        ) {
            let accounts = IDS.map(account);
            let moves: Vec<_> = moves.into_iter().filter(|(d, c, ..)| d != c).collect();
            let records: Vec<_> = moves
                .iter()
                .map(|&(d, c, amount, id)| transfer(id, &accounts[d], &accounts[c], amount))
                .collect();
            let mut book = Book::default();
            book.default_limits.insert(None, Limit::Overdraft(overdraft));
            for (i, bound) in bounds.into_iter().enumerate() {
                let balance = bound.min(start[i]);
                book.funds.insert((IDS[i], eur()), Funds { balance, fresh: false });
            }
            let decisions = loop {
                let decisions = decide(&book, &records);
                if decisions.short.is_empty() {
                    break decisions;
                }
                for &(id, currency) in &decisions.short {
                    let i = IDS.iter().position(|known| *known == id).unwrap();
                    book.funds.insert((id, currency), Funds { balance: start[i], fresh: true });
                }
            };

            let mut balances = [start[0], start[1], start[2], 0];
            let mut seen = std::collections::HashSet::new();
            for (&(d, c, amount, id), verdict) in moves.iter().zip(&decisions.verdicts) {
                let amount = i128::from(amount);
                let expected = if !seen.insert(id) {
                    Verdict::Duplicate
                } else if d != 3 && balances[d] - amount < -i128::from(overdraft) {
                    Verdict::Rejected(Reason::InsufficientFunds)
                } else {
                    balances[d] -= amount;
                    balances[c] += amount;
                    Verdict::Posted
                };
                prop_assert_eq!(*verdict, expected);
                prop_assert!(balances[..3].iter().all(|b| *b >= -i128::from(overdraft)));
            }
        }
    }
}
