//! What one run is to do.

use clap::Args;
use millrace_generator::{IdVersion, Skew, Workload};
use millrace_rules::Currency;
use serde::{Deserialize, Serialize};

/// What a run does. The same parameters publish the same transactions, ids included.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct Parameters {
    /// Transactions in the measured drain; fewer than a thousand are over before they can be measured, and of fewer than some
    /// 200,000, which are less than ten batches, tx/s has starting and joining the group in it.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub count: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Accounts that the transactions move money between.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..))]
    pub accounts: u64,
    /// How often an account takes part: uniform or zipf:EXPONENT.
    #[arg(long, default_value = "uniform")]
    #[serde(with = "text")]
    pub skew: Skew,
    /// v7 (ordered by time) or v4 (random).
    #[arg(long, default_value = "v7")]
    #[serde(with = "text")]
    pub ids: IdVersion,
    /// Share of deposits from and withdrawals to the outside, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub external_share: f64,
    /// Overdraft limit of every account in minor units, or none. A limit implies --funded.
    #[arg(long, default_value = "none", value_parser = limit)]
    pub limit: Limit,
    /// Give the accounts opening deposits before the measured drain: see the README.
    #[arg(long)]
    pub funded: bool,
    /// Processes of `millrace ledger`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: u32,
    /// Lanes of each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub lanes: u32,
    /// Run `millrace project` beside it, and wait until the background models are up to date.
    #[arg(long)]
    pub project: bool,
    /// Transactions drained before, by the same ledger.
    #[arg(long, default_value_t = 0)]
    pub existing_rows: u64,
    /// Another seed gives other transactions.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The overdraft limit of every account in minor units, if there is one.
pub type Limit = Option<u64>;

/// A named run, and the name of the run that it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Unique in its suite.
    pub name: String,
    /// The one that differs from it in one thing only.
    pub compared_with: Option<String>,
    /// What it does.
    pub parameters: Parameters,
}

/// When the first transaction of every run occurs: 2026-01-01T00:00:00Z, microseconds since 1970. The
/// same for all, so that ids and days are.
const START_MICROS: i64 = 1_767_225_600_000_000;

/// The generator's transactions are this far apart.
const STEP_MICROS: i64 = 1_000;

/// How far the seed of the transactions drained before is from the seed of those measured.
const EXISTING_SEED: u64 = 1_000_003;

impl Parameters {
    /// Whether accounts have opening deposits.
    pub fn is_funded(&self) -> bool {
        self.funded || self.limit.is_some()
    }

    /// The transactions drained before, as far as `there` of them are not there yet.
    pub fn existing(&self, there: u64) -> Workload {
        let missing = self.existing_rows.saturating_sub(there);
        self.workload(missing, self.seed ^ EXISTING_SEED, self.accounts + there)
    }

    /// The transactions of the measured drain.
    pub fn measured(&self) -> Workload {
        let before = self.accounts + self.existing_rows;
        self.workload(self.count, self.seed, before)
    }

    /// `before`: how many come earlier.
    fn workload(&self, count: u64, seed: u64, before: u64) -> Workload {
        Workload {
            count,
            rate: None,
            accounts: self.accounts,
            skew: self.skew,
            seed,
            id_version: self.ids,
            currency: Currency::parse("EUR").expect("a currency"),
            external_share: self.external_share,
            start_micros: START_MICROS + micros(before),
        }
    }
}

impl Case {
    /// A single run, named for what it does.
    pub fn of(parameters: &Parameters) -> Self {
        let skew = match parameters.skew {
            Skew::Uniform => "uniform".to_owned(),
            Skew::Zipf(exponent) => format!("Zipf {exponent:?}"),
        };
        let limit = parameters.limit.map(|limit| format!("limit {limit}"));
        let random = (parameters.ids == IdVersion::V4).then(|| "v4 ids".to_owned());
        let funded = parameters.is_funded().then(|| "funded".to_owned());
        let models = parameters.project.then(|| "background models".to_owned());
        let all = [Some(skew), funded, limit, random, models];
        let name = all.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Self {
            name,
            compared_with: None,
            parameters: parameters.clone(),
        }
    }

    /// The same with another name.
    pub fn named(self, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, ..self }
    }

    /// The same, to be compared with another.
    pub fn compared_with(mut self, other: &Self) -> Self {
        self.compared_with = Some(other.name.clone());
        self
    }
}

/// When opening deposits are made: before everything else, a millisecond apart.
pub fn deposit_micros(place: u64) -> i64 {
    START_MICROS + micros(place)
}

fn micros(transactions: u64) -> i64 {
    i64::try_from(transactions).map_or(i64::MAX, |n| n.saturating_mul(STEP_MICROS))
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(None);
    }
    let limit = text
        .parse()
        .map_err(|_| "minor units, or none".to_owned())?;
    Ok(Some(limit))
}

/// Values that are known by their text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}
