//! The kinds of faults, and their order drawn from a seed.

use clap::ValueEnum;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Every how many-th fault, on average, is followed by the next before it is over.
const TWO_AT_ONCE_EVERY: u32 = 6;

/// What is done to whom.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `kill -9` of a replica.
    KillReplica,
    /// SIGSTOP, and SIGCONT before its session ends.
    FreezeShort,
    /// SIGSTOP for longer than its session: it wakes up after its partitions moved.
    FreezeLong,
    /// The same while its database transaction is open.
    FreezeInCopy,
    /// SIGTERM, and a new one later.
    Drain,
    /// SIGTERM.
    Remove,
    /// One replica more.
    Add,
    /// `pg_terminate_backend` of a lane's session.
    TerminateBackend,
    /// `kill -9` of a lane's server process: Postgres restarts all of them.
    KillBackend,
    /// `kill -9` of Postgres as a whole.
    KillPostgres,
    /// `kill -9` of a broker.
    KillBroker,
    /// A replica's way to Postgres is slow.
    PostgresSlow,
    /// Nothing passes on it.
    PostgresStalled,
    /// Its connections are reset, and new ones refused.
    PostgresCut,
    /// The same with its way to Kafka.
    KafkaSlow,
    /// Nothing passes on it.
    KafkaStalled,
    /// Its connections are reset, and new ones refused.
    KafkaCut,
}

impl Kind {
    /// All of them. A removal comes as often as an addition, so the number of replicas keeps near its start.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// As it is told and kept.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillReplica => "kill -9 of a replica",
            Self::FreezeShort => "SIGSTOP, shorter than the session",
            Self::FreezeLong => "SIGSTOP, longer than the session",
            Self::FreezeInCopy => "SIGSTOP in mid-transaction, longer",
            Self::Drain => "SIGTERM of a replica",
            Self::Remove => "replica removed",
            Self::Add => "replica added",
            Self::TerminateBackend => "pg_terminate_backend of a lane",
            Self::KillBackend => "kill -9 of a lane's backend",
            Self::KillPostgres => "kill -9 of Postgres",
            Self::KillBroker => "kill -9 of a broker",
            Self::PostgresSlow => "slow connection to Postgres",
            Self::PostgresStalled => "stalled connection to Postgres",
            Self::PostgresCut => "cut connection to Postgres",
            Self::KafkaSlow => "slow connection to Kafka",
            Self::KafkaStalled => "stalled connection to Kafka",
            Self::KafkaCut => "cut connection to Kafka",
        }
    }
}

/// One fault of the plan. The same seed gives the same faults; the moment is real, and so is what is hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// From 1.
    pub number: u32,
    /// What.
    pub kind: Kind,
    /// For all further draws about it.
    pub seed: u64,
    /// The pause before it, as a share of the mean one: 0.5 to 1.5.
    pub pause: f64,
    /// Whether the next one is made before this one is over.
    pub with_next: bool,
}

impl Fault {
    /// The draws about it.
    pub fn random(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }
}

/// All faults of a seed, without an end: each kind once in any order, and again.
#[derive(Debug)]
pub struct Plan {
    random: ChaCha8Rng,
    kinds: Vec<Kind>,
    bag: Vec<Kind>,
    number: u32,
}

impl Plan {
    /// The plan of this seed, of these kinds.
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            random: ChaCha8Rng::seed_from_u64(seed),
            bag: Vec::new(),
            number: 0,
        }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.bag.shuffle(&mut self.random);
        }
        self.number += 1;
        Some(Fault {
            number: self.number,
            kind: self.bag.pop()?,
            seed: self.random.random(),
            pause: self.random.random_range(0.5..1.5),
            with_next: self.random.random_ratio(1, TWO_AT_ONCE_EVERY),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_every_kind() {
        let plan = |seed| -> Vec<_> { Plan::new(seed, Kind::all()).take(170).collect() };
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        for round in plan(7).chunks(Kind::all().len()) {
            let kinds: BTreeSet<_> = round.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::all().len());
        }
    }
}
