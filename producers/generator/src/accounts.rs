//! Which account: how often, under which name.

use std::borrow::Cow;
use std::fmt::Write as _;

use millrace_rules::AccountId;
use rand::{Rng, RngExt as _};
use rand_distr::{Distribution as _, Zipf};

use crate::Skew;

/// Where deposits come from and withdrawals go to.
const OUTSIDE: &str = "external:generator";

/// A prime above every number of accounts, so multiplying by it permutes them.
const STRIDE: u64 = 2_654_435_761;

/// How often two equal accounts are drawn before their neighbour is taken: only the steepest skew
/// comes that far.
const DRAWS_MAX: usize = 16;

/// Draws accounts.
#[derive(Debug, Clone)]
pub struct Accounts {
    count: u64,
    zipf: Option<Zipf<f64>>,
}

impl Accounts {
    /// `count` is at least 2, the exponent valid (see [`crate::Workload::check`]).
    pub(crate) fn new(count: u64, skew: Skew) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most 10^9 accounts")]
        let zipf = |exponent| Zipf::new(count as f64, exponent).expect("the workload was checked");
        let zipf = match skew {
            Skew::Uniform => None,
            Skew::Zipf(exponent) => Some(zipf(exponent)),
        };
        Self { count, zipf }
    }

    /// One account.
    pub(crate) fn draw(&self, random: &mut impl Rng) -> AccountId<'static> {
        name(self.number(self.rank(random)))
    }

    /// Two different accounts.
    pub(crate) fn draw_pair(
        &self,
        random: &mut impl Rng,
    ) -> (AccountId<'static>, AccountId<'static>) {
        let first = self.rank(random);
        let second = (0..DRAWS_MAX)
            .map(|_| self.rank(random))
            .find(|rank| *rank != first)
            .unwrap_or((first + 1) % self.count);
        (name(self.number(first)), name(self.number(second)))
    }

    /// 0 is the busiest.
    fn rank(&self, random: &mut impl Rng) -> u64 {
        match &self.zipf {
            None => random.random_range(0..self.count),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a sample is an integer from 1 to the number of accounts"
            )]
            Some(zipf) => (zipf.sample(random) as u64 - 1).min(self.count - 1),
        }
    }

    /// Spreads busy accounts over the whole range: neighbours in rank share no page of an index. The
    /// same for every seed, so runs with different seeds meet the same busy accounts.
    fn number(&self, rank: u64) -> u64 {
        rank * STRIDE % self.count
    }
}

/// The outside world.
pub(crate) fn outside() -> AccountId<'static> {
    AccountId::parse(Cow::Borrowed(OUTSIDE)).expect("a constant that fits the pattern")
}

fn name(number: u64) -> AccountId<'static> {
    let mut name = String::with_capacity(16);
    write!(name, "account-{number:07}").expect("writing to a string does not fail");
    AccountId::parse(Cow::Owned(name)).expect("letters and digits fit the pattern")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ranks_are_permuted() {
        for count in [2, 3, 12, 1_000, 99_999, 100_000] {
            let accounts = Accounts::new(count, Skew::Uniform);
            let numbers: HashSet<_> = (0..count).map(|rank| accounts.number(rank)).collect();
            assert_eq!(numbers.len() as u64, count);
            assert!(numbers.iter().all(|number| *number < count));
        }
        let largest = crate::workload::ACCOUNTS_MAX;
        assert!((largest - 1).checked_mul(STRIDE).is_some());
        assert!(STRIDE > largest);
    }

    #[test]
    fn the_stride_is_prime() {
        let root = STRIDE.isqrt();
        assert!((2..=root).all(|divisor| !STRIDE.is_multiple_of(divisor)));
    }
}
