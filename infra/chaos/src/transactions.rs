//! What is published: a pure function of a seed and a number, so that the oracle needs no copy of it.

use std::borrow::Cow;

use millrace_rules::{AccountId, Amount, Currency};
use millrace_schemas::Transaction;
use millrace_schemas::wire::Metadata;
use uuid::Uuid;

/// How many accounts are debited far more often than the others.
const HOT_ACCOUNTS: u64 = 20;

/// The outside world.
const OUTSIDE: u64 = u64::MAX;

/// The currency of all of them.
pub const CURRENCY: &str = "EUR";

/// 2026-01-01T00:00:00Z, in microseconds.
const START_MICROS: u64 = 1_767_225_600_000_000;

/// Between two transactions' times. Fixed, because contents must not depend on the rate.
const STEP_MICROS: u64 = 100;

/// The bits of an id that hold its number: enough for a trillion.
const NUMBER_BITS: u32 = 40;

/// All transactions of a run.
#[derive(Debug, Clone, Copy)]
pub struct Transactions {
    /// Another seed gives other transactions.
    pub seed: u64,
    /// How many accounts there are beside the outside.
    pub accounts: u64,
}

/// What one of them moves. Accounts are numbers: [`account_number`] of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Where the money comes from.
    pub debit: u64,
    /// Where it goes to.
    pub credit: u64,
    /// Minor units.
    pub amount: i64,
}

impl Transactions {
    /// The transaction with this number.
    pub fn get(&self, number: u64) -> Transaction<'static> {
        let Move {
            debit,
            credit,
            amount,
        } = self.moves(number);
        let account = |number| AccountId::parse(Cow::Owned(account_name(number)));
        Transaction {
            id: self.id(number),
            kind: Cow::Borrowed("transfer"),
            debit_account: account(debit).expect("a valid name"),
            credit_account: account(credit).expect("a valid name"),
            amount: Amount::new(amount).expect("between 1 and 99,999"),
            currency: Currency::parse(CURRENCY).expect("a currency"),
            occurred_at: micros(number).cast_signed(),
            reference: Cow::Borrowed(""),
            source: Cow::Borrowed("chaos"),
            metadata: Metadata::default(),
        }
    }

    /// What it moves. Two of ten come from outside or go there, two of ten are debits of a hot account.
    pub fn moves(&self, number: u64) -> Move {
        let draw = |what: u64| mix(self.seed ^ mix(number << 3 | what));
        let hot = HOT_ACCOUNTS.min(self.accounts / 2);
        let any = draw(0) % self.accounts;
        // Never the account itself.
        let another = |account: u64| (account + 1 + draw(1) % (self.accounts - 1)) % self.accounts;
        let (debit, credit) = match draw(2) % 10 {
            0 => (OUTSIDE, any),
            1 => (any, OUTSIDE),
            2 | 3 => (any % hot, another(any % hot)),
            _ => (any, another(any)),
        };
        Move {
            debit,
            credit,
            amount: (1 + draw(3) % 99_999).cast_signed(),
        }
    }

    /// A version 7 id: the time, the seed and the number.
    pub fn id(&self, number: u64) -> Uuid {
        let millis = u128::from(micros(number) / 1_000);
        let seed = u128::from(mix(self.seed) >> 42);
        let tail = seed << NUMBER_BITS | u128::from(number);
        Uuid::from_u128(millis << 80 | 0x7 << 76 | 0b10 << 62 | tail)
    }

    /// The number of the transaction with this id, if it is one of these.
    pub fn number(&self, id: Uuid) -> Option<u64> {
        let number = id.as_u128() & ((1 << NUMBER_BITS) - 1);
        let number = u64::try_from(number).ok()?;
        (self.id(number) == id).then_some(number)
    }
}

/// `account-17`, or the outside.
pub fn account_name(number: u64) -> String {
    if number == OUTSIDE {
        "external:chaos".to_owned()
    } else {
        format!("account-{number}")
    }
}

/// The account with this name, if it is one of these.
pub fn account_number(name: &str) -> Option<u64> {
    match name.strip_prefix("account-") {
        Some(number) => number.parse().ok(),
        None => (name == account_name(OUTSIDE)).then_some(OUTSIDE),
    }
}

fn micros(number: u64) -> u64 {
    START_MICROS + number * STEP_MICROS
}

/// The finaliser of `SplitMix64`: spreads the bits of its argument over all of the result.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Transactions = Transactions {
        seed: 5,
        accounts: 1_000,
    };

    #[test]
    fn an_id_tells_its_number_and_belongs_to_its_seed() {
        let other = Transactions { seed: 6, ..ALL };
        for number in [0, 1, 17, 18_000_000, (1 << NUMBER_BITS) - 1] {
            let id = ALL.id(number);
            assert_eq!(ALL.number(id), Some(number));
            assert_eq!(other.number(id), None);
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn they_move_money_between_two_accounts() {
        for number in 0..10_000 {
            let moves = ALL.moves(number);
            assert_ne!(moves.debit, moves.credit);
            let transaction = ALL.get(number);
            let of = |id: &AccountId| account_number(id.as_str());
            assert_eq!(of(&transaction.debit_account), Some(moves.debit));
            assert_eq!(of(&transaction.credit_account), Some(moves.credit));
        }
    }
}
