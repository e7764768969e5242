//! What a lane remembers between batches: policies, and the funds of limited accounts.
//!
//! It counts only while the chain head and the policy version found under the lock are those that
//! this lane wrote or saw last; it is forgotten with every rollback, reconnect and reassignment.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use foldhash::fast::RandomState;
use millrace_rules::{Book, Candidate, Content, Currency, Decisions, Funds, Limit, Status};
use millrace_schemas::partition_of;

use crate::chain::Head;
use crate::planted::{self, Bug};
use crate::store::{Policies, Position};

type Map<K, V> = HashMap<K, V, RandomState>;

/// The most accounts whose policies a lane remembers (about 100 bytes each). Beyond, it forgets all and reads again
/// what it meets.
const ACCOUNTS_MAX: usize = 250_000;

/// The most balances that a lane remembers (32 bytes each, in tables that are half to seven eighths full). Beyond, it
/// forgets all and reads again what it meets.
const FUNDS_MAX: usize = 1_000_000;

/// A lane's memory.
#[derive(Debug, Default)]
pub struct Memory {
    partitions: Map<i32, Partition>,
    overview: Option<Policies>,
    accounts: Map<Box<str>, Account>,
}

#[derive(Debug, Default)]
struct Partition {
    chain_head: Head,
    policy_version: i64,
    funds: Map<u128, i128>,
}

#[derive(Debug, Default)]
struct Account {
    status: Status,
    limits: Vec<(Option<Currency>, Limit)>,
}

impl Memory {
    /// Forgets everything.
    pub fn clear(&mut self) {
        if !planted::has(Bug::KeepFunds) {
            *self = Self::default();
        }
    }

    /// Drops what the locked positions show to be out of date.
    pub fn reconcile(&mut self, positions: &[Position]) {
        let current = |position: &Position| {
            let known = self.partitions.get(&position.partition);
            known.is_some_and(|known| {
                known.policy_version == position.policy_version
                    || planted::has(Bug::IgnorePolicyVersion)
            })
        };
        if !positions.iter().all(current) {
            self.overview = None;
            self.accounts.clear();
        }
        for position in positions {
            let known = self.partitions.entry(position.partition).or_default();
            // Funds end with the policies too: while an account was unlimited, nobody kept count.
            if known.policy_version != position.policy_version
                || (known.chain_head != position.chain_head && !planted::has(Bug::KeepFunds))
            {
                known.policy_version = position.policy_version;
                known.chain_head = position.chain_head;
                known.funds.clear();
            }
        }
    }

    /// Which accounts' policies must be read before the batch can be decided; `None` when nothing.
    pub fn missing_policies<'d>(&self, candidates: &[Candidate<'d>]) -> Option<Vec<&'d str>> {
        let Some(overview) = &self.overview else {
            return Some(Vec::new());
        };
        if !overview.any_limits && !overview.any_statuses {
            return None;
        }
        let mut missing: Vec<_> = candidates
            .iter()
            .filter_map(transfer)
            .flat_map(|transfer| [transfer.debit.as_str(), transfer.credit.as_str()])
            .filter(|account| !self.accounts.contains_key(*account))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        (!missing.is_empty()).then_some(missing)
    }

    /// Takes in what was read for `accounts`.
    pub fn learn_policies(&mut self, accounts: &[&str], policies: Policies) {
        if self.accounts.len() + accounts.len() > ACCOUNTS_MAX {
            self.accounts.clear();
        }
        for account in accounts {
            self.accounts.insert((*account).into(), Account::default());
        }
        for (account, status) in &policies.statuses {
            self.accounts
                .entry(account.as_str().into())
                .or_default()
                .status = *status;
        }
        for (account, currency, limit) in &policies.limits {
            let account = self.accounts.entry(account.as_str().into()).or_default();
            account.limits.push((*currency, *limit));
        }
        self.overview = Some(Policies {
            limits: Vec::new(),
            statuses: Vec::new(),
            ..policies
        });
    }

    /// Fills the book with the policies and funds that the candidates meet. Policies must not be
    /// missing. The topic has `partitions`.
    pub fn fill<'d>(&self, book: &mut Book<'d>, candidates: &[Candidate<'d>], partitions: i32) {
        let Some(overview) = &self.overview else {
            return;
        };
        book.default_limits
            .extend(overview.default_limits.iter().copied());
        if !overview.any_limits && !overview.any_statuses && overview.default_limits.is_empty() {
            return;
        }
        for candidate in candidates {
            let Some(transfer) = transfer(candidate) else {
                continue;
            };
            for id in [transfer.debit.as_str(), transfer.credit.as_str()] {
                let Some(account) = self.accounts.get(id) else {
                    continue;
                };
                if account.status != Status::Open {
                    book.statuses.insert(id, account.status);
                }
                for (currency, limit) in &account.limits {
                    book.limits.insert((id, *currency), *limit);
                }
            }
        }
        for candidate in candidates {
            let Some(transfer) = transfer(candidate) else {
                continue;
            };
            for account in [transfer.debit, transfer.credit] {
                if book.limit(account, transfer.currency) == Limit::Unlimited {
                    continue;
                }
                let home = partition_of(account.as_str().as_bytes(), partitions);
                if let Some(balance) = self.balance(home, account.as_str(), transfer.currency) {
                    let funds = Funds {
                        balance,
                        fresh: false,
                    };
                    book.funds
                        .insert((account.as_str(), transfer.currency), funds);
                }
            }
        }
    }

    /// The batch is committed: its heads and funds are what the database now has.
    pub fn committed(
        &mut self,
        decisions: &Decisions<'_>,
        heads: impl Iterator<Item = (i32, Head)>,
        partitions: i32,
    ) {
        for (partition, head) in heads {
            self.partitions.entry(partition).or_default().chain_head = head;
        }
        let remembered: usize = self
            .partitions
            .values()
            .map(|known| known.funds.len())
            .sum();
        if remembered + decisions.funds.len() > FUNDS_MAX {
            self.partitions
                .values_mut()
                .for_each(|known| known.funds.clear());
        }
        for ((account, currency), funds) in &decisions.funds {
            let home = partition_of(account.as_bytes(), partitions);
            // Only this lane lowers the balances of its own partitions' accounts.
            if let Some(known) = self.partitions.get_mut(&home) {
                known
                    .funds
                    .insert(name_of(account, *currency), funds.balance);
            }
        }
    }

    fn balance(&self, home: i32, account: &str, currency: Currency) -> Option<i128> {
        let known = self.partitions.get(&home)?;
        known.funds.get(&name_of(account, currency)).copied()
    }
}

/// A balance is remembered by two 64-bit hashes of what it is of, not by its texts: half of the memory and no
/// allocation. That two of them are equal by chance is as likely as for random UUIDs.
fn name_of(account: &str, currency: Currency) -> u128 {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(number);
        hasher.write(currency.code().as_bytes());
        hasher.write(account.as_bytes());
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn transfer<'c, 'd>(candidate: &'c Candidate<'d>) -> Option<&'c millrace_rules::Transfer<'d>> {
    match &candidate.content {
        Content::Transfer(transfer) => Some(transfer),
        Content::Refused(_) | Content::Parked(_) => None,
    }
}
