//! What to generate, and what of it is refused.

use std::fmt;
use std::str::FromStr;

use millrace_rules::Currency;
use millrace_schemas::transaction::OCCURRED_AT_MAX;

use crate::Transactions;

/// The most accounts of a workload.
pub const ACCOUNTS_MAX: u64 = 1_000_000_000;

/// The steepest Zipf exponent: from there on one account has nearly everything.
pub const ZIPF_EXPONENT_MAX: f64 = 10.0;

/// The highest rate in transactions per second: one each microsecond, the resolution of their times.
pub const RATE_MAX: f64 = 1_000_000.0;

/// Between the times of two transactions when there is no rate.
const OCCURRED_STEP_MICROS: f64 = 1_000.0;

/// How often an account takes part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Skew {
    /// All accounts alike.
    Uniform,
    /// The account of rank r in proportion to 1/r^exponent; 0 to [`ZIPF_EXPONENT_MAX`].
    Zipf(f64),
}

/// How ids are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdVersion {
    /// Ordered by time, as Millrace mints them: new rows land at the end of the index.
    V7,
    /// Random: new rows land anywhere in the index.
    V4,
}

/// `uniform` or `zipf:EXPONENT`, such as `zipf:1.0`.
impl FromStr for Skew {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        text.strip_prefix("zipf:")
            .and_then(|exponent| exponent.parse().ok())
            .map(Self::Zipf)
            .ok_or_else(|| Invalid::Skew(text.to_owned()))
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent:?}"),
        }
    }
}

/// `v7` or `v4`.
impl FromStr for IdVersion {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "v7" => Ok(Self::V7),
            "v4" => Ok(Self::V4),
            _ => Err(Invalid::IdVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for IdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V7 => "v7",
            Self::V4 => "v4",
        })
    }
}

/// A synthetic load. The same values give the same transactions, ids included, so publishing it twice
/// posts it once.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// How many transactions.
    pub count: u64,
    /// Transactions per second, up to [`RATE_MAX`]; `None` is flat out.
    pub rate: Option<f64>,
    /// How many accounts, besides the one outside: 2 to [`ACCOUNTS_MAX`].
    pub accounts: u64,
    /// How often each takes part.
    pub skew: Skew,
    /// Another seed gives other transactions.
    pub seed: u64,
    /// How ids are made.
    pub id_version: IdVersion,
    /// The currency of all of them.
    pub currency: Currency,
    /// Which share credits an account from outside or debits it to the outside, half of them each:
    /// 0 to 1. The rest moves between two accounts.
    pub external_share: f64,
    /// When the first one occurs, in microseconds since 1970, not before. The others follow at the
    /// rate, or a millisecond apart.
    pub start_micros: i64,
}

/// Why a workload cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// Too few or too many accounts.
    #[error("{0} accounts are not between 2 and {ACCOUNTS_MAX}")]
    Accounts(u64),
    /// Not a rate.
    #[error("a rate of {0} per second is not above 0 and up to {RATE_MAX}")]
    Rate(f64),
    /// Not the name of a skew.
    #[error("skew {0:?} is neither uniform nor zipf:EXPONENT")]
    Skew(String),
    /// Not a version of ids that can be generated.
    #[error("id version {0:?} is neither v7 nor v4")]
    IdVersion(String),
    /// Not an exponent.
    #[error("the zipf exponent {0} is not between 0 and {ZIPF_EXPONENT_MAX}")]
    Exponent(f64),
    /// Not a share.
    #[error("the external share {0} is not between 0 and 1")]
    ExternalShare(f64),
    /// Times before 1970 or after the year 9999.
    #[error("times from {start_micros} on for {count} transactions leave the years 1970 to 9999")]
    Times {
        /// The first time.
        start_micros: i64,
        /// How many follow.
        count: u64,
    },
}

impl Workload {
    /// The transactions, in order.
    pub fn transactions(&self) -> Result<Transactions, Invalid> {
        self.check()?;
        Ok(Transactions::new(self.clone()))
    }

    /// Whether it can be generated.
    pub fn check(&self) -> Result<(), Invalid> {
        if !(2..=ACCOUNTS_MAX).contains(&self.accounts) {
            return Err(Invalid::Accounts(self.accounts));
        }
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= RATE_MAX)
        {
            return Err(Invalid::Rate(rate));
        }
        if let Skew::Zipf(exponent) = self.skew
            && !(0.0..=ZIPF_EXPONENT_MAX).contains(&exponent)
        {
            return Err(Invalid::Exponent(exponent));
        }
        if !(0.0..=1.0).contains(&self.external_share) {
            return Err(Invalid::ExternalShare(self.external_share));
        }
        let fits = self.start_micros >= 0
            && self
                .start_micros
                .checked_add(self.offset_micros(self.count))
                .is_some_and(|end| end <= OCCURRED_AT_MAX);
        if !fits {
            return Err(Invalid::Times {
                start_micros: self.start_micros,
                count: self.count,
            });
        }
        Ok(())
    }

    /// How long after the first transaction the one of this index occurs, in microseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts are far below 2^53, and a float beyond i64 becomes its maximum"
    )]
    pub(crate) fn offset_micros(&self, index: u64) -> i64 {
        let step = self.rate.map_or(OCCURRED_STEP_MICROS, |rate| 1e6 / rate);
        (index as f64 * step) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            count: 1_000,
            rate: None,
            accounts: 100,
            skew: Skew::Uniform,
            seed: 1,
            id_version: IdVersion::V7,
            currency: Currency::parse("EUR").unwrap(),
            external_share: 0.2,
            start_micros: 1_700_000_000_000_000,
        }
    }

    #[test]
    fn what_cannot_be_generated_is_refused() {
        type Change = fn(&mut Workload);
        assert_eq!(workload().check(), Ok(()));
        let refused: [(Change, &str); 14] = [
            (|w| w.accounts = 1, "1 accounts"),
            (|w| w.accounts = ACCOUNTS_MAX + 1, "1000000001 accounts"),
            (|w| w.rate = Some(0.0), "rate of 0 "),
            (|w| w.rate = Some(-5.0), "rate of -5 "),
            (|w| w.rate = Some(f64::NAN), "rate of NaN "),
            (|w| w.rate = Some(RATE_MAX * 2.0), "rate of 2000000 "),
            (|w| w.skew = Skew::Zipf(-0.1), "exponent -0.1 "),
            (|w| w.skew = Skew::Zipf(f64::NAN), "exponent NaN "),
            (|w| w.skew = Skew::Zipf(10.5), "exponent 10.5 "),
            (|w| w.external_share = 1.5, "share 1.5 "),
            (|w| w.external_share = f64::NAN, "share NaN "),
            (|w| w.start_micros = -1, "times from -1 "),
            (
                |w| w.start_micros = i64::MAX,
                "times from 9223372036854775807 ",
            ),
            (
                |w| w.count = u64::MAX,
                "for 18446744073709551615 transactions",
            ),
        ];
        for (change, text) in refused {
            let mut workload = workload();
            change(&mut workload);
            let error = workload.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} lacks {text:?}");
            assert!(workload.transactions().is_err());
        }
    }

    #[test]
    fn names_round_trip() {
        for skew in [Skew::Uniform, Skew::Zipf(1.0), Skew::Zipf(0.99)] {
            assert_eq!(skew.to_string().parse(), Ok(skew));
        }
        for version in [IdVersion::V7, IdVersion::V4] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for bad in ["", "Uniform", "zipf", "zipf:", "zipf:x"] {
            assert_eq!(bad.parse::<Skew>(), Err(Invalid::Skew(bad.into())));
        }
        assert!("v5".parse::<IdVersion>().is_err());
    }

    #[test]
    fn times_follow_the_rate() {
        let mut workload = workload();
        assert_eq!(workload.offset_micros(3), 3_000);
        workload.rate = Some(40_000.0);
        assert_eq!(workload.offset_micros(40_000), 1_000_000);
    }
}
