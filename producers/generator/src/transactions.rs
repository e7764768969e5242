//! The pure part: the same workload gives the same transactions. No clock, no I/O.

use std::borrow::Cow;

use millrace_rules::{AccountId, Amount};
use millrace_schemas::Transaction;
use millrace_schemas::wire::Metadata;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use crate::accounts::{Accounts, outside};
use crate::{IdVersion, Workload};

/// The upstream system that all of them name.
const SOURCE: &str = "generator";

/// Kinds of transactions between two accounts; the first is as frequent as the others together.
const INTERNAL_KINDS: [&str; 4] = ["transfer", "transfer", "payment", "fee"];

/// Where they were ordered.
const CHANNELS: [&str; 4] = ["web", "mobile", "branch", "batch"];

/// Any odd number with its bits well spread: 2^128 divided by the golden ratio.
const TIME_MIX: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// The transactions of a [`Workload`], in order.
#[derive(Debug, Clone)]
pub struct Transactions {
    workload: Workload,
    accounts: Accounts,
    random: ChaCha8Rng,
    index: u64,
}

impl Transactions {
    /// The workload was checked.
    pub(crate) fn new(workload: Workload) -> Self {
        Self {
            accounts: Accounts::new(workload.accounts, workload.skew),
            random: ChaCha8Rng::seed_from_u64(workload.seed),
            index: 0,
            workload,
        }
    }

    fn next_move(&mut self) -> Move {
        let random = &mut self.random;
        let external =
            self.workload.external_share > 0.0 && random.random_bool(self.workload.external_share);
        if !external {
            let (debit, credit) = self.accounts.draw_pair(random);
            Move {
                kind: pick(INTERNAL_KINDS, random),
                debit,
                credit,
            }
        } else if random.random() {
            Move {
                kind: "deposit",
                debit: outside(),
                credit: self.accounts.draw(random),
            }
        } else {
            Move {
                kind: "withdrawal",
                debit: self.accounts.draw(random),
                credit: outside(),
            }
        }
    }
}

impl Iterator for Transactions {
    type Item = Transaction<'static>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.workload.count {
            return None;
        }
        let occurred_at = self.workload.start_micros + self.workload.offset_micros(self.index);
        let Move {
            kind,
            debit,
            credit,
        } = self.next_move();
        let channel = (
            Cow::Borrowed("channel"),
            Cow::Borrowed(pick(CHANNELS, &mut self.random)),
        );
        let transaction = Transaction {
            id: id(self.workload.id_version, occurred_at, &mut self.random),
            kind: Cow::Borrowed(kind),
            debit_account: debit,
            credit_account: credit,
            amount: amount(&mut self.random),
            currency: self.workload.currency,
            occurred_at,
            reference: Cow::Owned(format!("no. {}", self.index)),
            source: Cow::Borrowed(SOURCE),
            metadata: Metadata::new(vec![channel]).expect("one key does not repeat"),
        };
        self.index += 1;
        Some(transaction)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.workload.count - self.index).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

/// Who moves money to whom.
struct Move {
    kind: &'static str,
    debit: AccountId<'static>,
    credit: AccountId<'static>,
}

fn pick(from: [&'static str; 4], random: &mut impl Rng) -> &'static str {
    from[random.random_range(0..from.len())]
}

/// 1 to 99,999 minor units; each number of digits is equally frequent, so small amounts are common.
/// Integers only: the same on every machine.
fn amount(random: &mut impl Rng) -> Amount {
    let least = 10_i64.pow(random.random_range(0..5));
    Amount::new(random.random_range(least..10 * least)).expect("between 1 and 99,999")
}

fn id(version: IdVersion, micros: i64, random: &mut impl Rng) -> Uuid {
    match version {
        // With the time in it: the same seed at another time gives other contents, which need other ids.
        IdVersion::V4 => {
            let time = u128::from(micros.unsigned_abs()).wrapping_mul(TIME_MIX);
            let bytes = (random.random::<u128>() ^ time).to_be_bytes();
            uuid::Builder::from_random_bytes(bytes).into_uuid()
        }
        IdVersion::V7 => v7(micros.unsigned_abs(), random.random()),
    }
}

/// RFC 9562: 48 bits of milliseconds, version, 12 bits of the millisecond's fraction (method 3 of
/// section 6.2), variant, 62 random bits.
fn v7(micros: u64, random: u64) -> Uuid {
    let millis = u128::from(micros / 1_000);
    let fraction = u128::from(micros % 1_000 * 4_096 / 1_000);
    let tail = u128::from(random >> 2);
    Uuid::from_u128(millis << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | tail)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use millrace_rules::Currency;
    use millrace_schemas::partition_of;
    use proptest::prelude::*;

    use super::*;
    use crate::Skew;

    fn workload(skew: Skew, accounts: u64, count: u64) -> Workload {
        Workload {
            count,
            rate: None,
            accounts,
            skew,
            seed: 7,
            id_version: IdVersion::V7,
            currency: Currency::parse("EUR").unwrap(),
            external_share: 0.0,
            start_micros: 1_700_000_000_000_000,
        }
    }

    fn any_workload() -> impl Strategy<Value = Workload> {
        let skew = prop_oneof![
            Just(Skew::Uniform),
            (0.0..10.0).prop_map(Skew::Zipf),
            Just(Skew::Zipf(1.0)),
        ];
        let version = prop_oneof![Just(IdVersion::V7), Just(IdVersion::V4)];
        let numbers = (0u64..200, 2u64..5_000_000, any::<u64>());
        let rate = prop::option::of(0.001..1_000_000.0);
        (numbers, skew, version, 0.0..=1.0, rate).prop_map(
            |((count, accounts, seed), skew, id_version, external_share, rate)| Workload {
                rate,
                seed,
                id_version,
                external_share,
                ..workload(skew, accounts, count)
            },
        )
    }

    /// The same transaction after a way over the wire, which validates every field.
    fn validated(transaction: &Transaction<'_>) -> Transaction<'static> {
        let mut bytes = Vec::new();
        millrace_schemas::encode(transaction, &mut bytes);
        let bytes: &'static [u8] = bytes.leak();
        let wire = millrace_schemas::decode(bytes, millrace_schemas::ContentType::Avro).unwrap();
        Transaction::try_from(wire).unwrap()
    }

    proptest! {
        #[test]
        fn the_same_workload_gives_the_same_valid_transactions(workload in any_workload()) {
            let first: Vec<_> = workload.transactions().unwrap().collect();
            let second: Vec<_> = workload.transactions().unwrap().collect();
            prop_assert_eq!(&first, &second);
            prop_assert_eq!(first.len() as u64, workload.count);
            prop_assert!(first.is_sorted_by_key(|transaction| transaction.occurred_at));
            for transaction in &first {
                prop_assert_eq!(&validated(transaction), transaction);
            }
        }

        #[test]
        fn another_seed_gives_other_transactions(workload in any_workload(), seed in any::<u64>()) {
            prop_assume!(seed != workload.seed);
            let other = Workload { seed, ..workload.clone() };
            let ids = |workload: &Workload| -> HashSet<Uuid> {
                workload.transactions().unwrap().map(|transaction| transaction.id).collect()
            };
            let (ids, other) = (ids(&workload), ids(&other));
            prop_assert_eq!(ids.len() as u64, workload.count);
            prop_assert!(ids.is_disjoint(&other));
        }
    }

    #[test]
    fn ids_of_version_7_carry_the_time() {
        let workload = workload(Skew::Uniform, 10, 2_000);
        let all: Vec<_> = workload.transactions().unwrap().collect();
        assert!(all.is_sorted_by_key(|transaction| transaction.id));
        for transaction in all {
            assert_eq!(transaction.id.get_version_num(), 7);
            assert_eq!(transaction.id.get_variant(), uuid::Variant::RFC4122);
            let (seconds, nanos) = transaction.id.get_timestamp().unwrap().to_unix();
            let micros = seconds * 1_000_000 + u64::from(nanos / 1_000);
            assert_eq!(micros, transaction.occurred_at.unsigned_abs());
        }
    }

    #[test]
    fn ids_of_version_4_are_random() {
        let mut workload = workload(Skew::Uniform, 10, 100);
        workload.id_version = IdVersion::V4;
        let mut later = workload.clone();
        later.start_micros += 1;
        let (all, later) = (workload.transactions(), later.transactions());
        for (transaction, later) in all.unwrap().zip(later.unwrap()) {
            assert_eq!(transaction.id.get_version_num(), 4);
            assert_eq!(transaction.id.get_variant(), uuid::Variant::RFC4122);
            assert_ne!(transaction.id, later.id, "other content needs another id");
        }
    }

    #[test]
    fn the_external_share_holds() {
        for (share, least, most) in [(0.0, 0, 0), (0.2, 1_800, 2_200), (1.0, 10_000, 10_000)] {
            let mut workload = workload(Skew::Uniform, 100, 10_000);
            workload.external_share = share;
            let mut deposits = 0;
            let mut withdrawals = 0;
            for transaction in workload.transactions().unwrap() {
                let debit = transaction.debit_account.is_external();
                let credit = transaction.credit_account.is_external();
                assert!(!(debit && credit));
                deposits += u32::from(debit);
                withdrawals += u32::from(credit);
            }
            let external = deposits + withdrawals;
            assert!((least..=most).contains(&external), "{share}: {external}");
            assert!(deposits.abs_diff(withdrawals) <= most / 10);
        }
    }

    /// How often each account is debited, most often first.
    fn debits(skew: Skew, accounts: u64, count: u64) -> Vec<(String, u32)> {
        let mut debits = HashMap::new();
        for transaction in workload(skew, accounts, count).transactions().unwrap() {
            *debits
                .entry(transaction.debit_account.to_string())
                .or_default() += 1;
        }
        let mut debits: Vec<_> = debits.into_iter().collect();
        debits.sort_by_key(|(_, debits)| std::cmp::Reverse(*debits));
        debits
    }

    #[test]
    fn skew_is_visible() {
        // The busiest of 1,000 accounts: 1/1000, 1/7.49 (the harmonic number), 6/pi^2.
        for (skew, least, most) in [
            (Skew::Uniform, 10, 80),
            (Skew::Zipf(1.0), 2_470, 2_870),
            (Skew::Zipf(2.0), 11_900, 12_500),
        ] {
            let debits = debits(skew, 1_000, 20_000);
            assert!(
                (least..=most).contains(&debits[0].1),
                "{skew}: {}",
                debits[0].1
            );
        }
    }

    #[test]
    fn busy_accounts_are_spread_over_partitions() {
        let debits = debits(Skew::Zipf(1.0), 100_000, 50_000);
        let partitions: HashSet<_> = debits[..24]
            .iter()
            .map(|(account, _)| partition_of(account.as_bytes(), 12))
            .collect();
        assert!(partitions.len() >= 9, "{partitions:?}");
    }

    #[test]
    fn the_steepest_skew_still_moves_money_between_two_accounts() {
        let workload = workload(Skew::Zipf(10.0), 2, 1_000);
        for transaction in workload.transactions().unwrap() {
            assert_ne!(transaction.debit_account, transaction.credit_account);
        }
    }

    #[test]
    fn amounts_are_small_more_often_than_large() {
        let amounts: Vec<_> = workload(Skew::Uniform, 10, 10_000)
            .transactions()
            .unwrap()
            .map(|transaction| transaction.amount.minor_units())
            .collect();
        assert!(amounts.iter().all(|amount| (1..100_000).contains(amount)));
        let small = amounts.iter().filter(|amount| **amount < 100).count();
        assert!((3_800..=4_200).contains(&small), "{small}");
        assert!(amounts.iter().any(|amount| *amount > 90_000));
    }
}
