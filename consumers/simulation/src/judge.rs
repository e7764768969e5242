//! Which verdicts a transaction may have: policies and money as a sequence of commits leaves them.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use millrace_rules::{Currency, Limit, ParkReason, Reason, Status, Verdict};

use crate::backend::{Policy, PolicyChange};
use crate::workload::{Move, POISON_AMOUNT};

/// The verdicts that are right: more than one where credits that came meanwhile may have been seen or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed([Option<Verdict>; 3]);

impl Allowed {
    pub fn one(verdict: Verdict) -> Self {
        Self([Some(verdict), None, None])
    }

    pub fn has(self, verdict: Verdict) -> bool {
        self.0.contains(&Some(verdict))
    }

    /// Or parked, where the database refused the row at a time when it could.
    pub fn or_refused(mut self, transfer: &Move) -> Self {
        if transfer.amount == POISON_AMOUNT {
            self.0[2] = Some(Verdict::Parked(ParkReason::DatabaseRefused));
        }
        self
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, verdict) in self.0.iter().flatten().enumerate() {
            let or = if place == 0 { "" } else { " or " };
            write!(f, "{or}{verdict:?}")?;
        }
        Ok(())
    }
}

/// The money of an account in one currency.
#[derive(Debug, Clone, Default)]
pub(crate) struct Purse {
    total: i128,
    /// By commit.
    changes: Vec<(u64, i128)>,
}

impl Purse {
    pub fn change(&mut self, commit: u64, amount: i128) {
        self.total += amount;
        self.changes.push((commit, amount));
    }

    pub fn total(&self) -> i128 {
        self.total
    }

    /// Without the credits of others that were committed since the locks were taken.
    pub fn at_least(&self, locked_after: u64, commit: u64) -> i128 {
        let changes = self.changes.iter().rev();
        let since = changes.take_while(|(when, _)| *when > locked_after);
        let others: i128 = since
            .filter(|(when, amount)| *when != commit && *amount > 0)
            .map(|(_, amount)| amount)
            .sum();
        self.total - others
    }
}

/// What accounts may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// Whether the database takes the rows that it refused at first.
    pub is_mended: bool,
    statuses: BTreeMap<Rc<str>, Status>,
    limits: BTreeMap<(Option<Rc<str>>, Option<&'static str>), Limit>,
}

impl Policies {
    pub fn set(&mut self, change: &PolicyChange) {
        match (change.policy, &change.account) {
            (Policy::Limit(currency, limit), account) => {
                let key = (account.clone(), currency.map(Currency::code));
                self.limits.insert(key, limit);
            }
            (Policy::Status(status), Some(account)) => {
                self.statuses.insert(Rc::clone(account), status);
            }
            (Policy::Status(_), None) => {}
        }
    }

    /// The verdicts of a transaction whose id is new. The debit account has between `at_least` and
    /// `at_most`, as far as its owner can know.
    pub fn judge(&self, transfer: &Move, at_least: i128, at_most: i128) -> Allowed {
        if transfer.amount == POISON_AMOUNT && !self.is_mended {
            return Allowed::one(Verdict::Parked(ParkReason::DatabaseRefused));
        }
        self.judge_by_rules(transfer, at_least, at_most)
            .or_refused(transfer)
    }

    fn judge_by_rules(&self, transfer: &Move, at_least: i128, at_most: i128) -> Allowed {
        let status = |account: &Rc<str>| self.statuses.get(account).copied().unwrap_or_default();
        let (debit, credit) = (status(&transfer.debit), status(&transfer.credit));
        let rejected = |reason| Allowed::one(Verdict::Rejected(reason));
        if debit == Status::Closed {
            return rejected(Reason::DebitAccountClosed);
        }
        if credit == Status::Closed {
            return rejected(Reason::CreditAccountClosed);
        }
        if debit == Status::Frozen {
            return rejected(Reason::DebitAccountFrozen);
        }
        let Limit::Overdraft(overdraft) = self.limit(transfer) else {
            return Allowed::one(Verdict::Posted);
        };
        let covers = |funds: i128| funds - i128::from(transfer.amount) >= -i128::from(overdraft);
        match (covers(at_least), covers(at_most)) {
            (true, _) => Allowed::one(Verdict::Posted),
            (false, false) => rejected(Reason::InsufficientFunds),
            (false, true) => Allowed([
                Some(Verdict::Posted),
                Some(Verdict::Rejected(Reason::InsufficientFunds)),
                None,
            ]),
        }
    }

    fn limit(&self, transfer: &Move) -> Limit {
        if transfer.debit.starts_with("external:") {
            return Limit::Unlimited;
        }
        let account = || Some(Rc::clone(&transfer.debit));
        let currency = Some(transfer.currency.code());
        let nearest = [
            (account(), currency),
            (account(), None),
            (None, currency),
            (None, None),
        ];
        let mut limits = nearest.iter().filter_map(|key| self.limits.get(key));
        limits.next().copied().unwrap_or(Limit::Unlimited)
    }
}
