//! What can go wrong, and how often: drawn from the seed.

use std::fmt;

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// Defines the faults once: variant, name, chance.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident, $name:literal, $chance:literal;)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$fault,)*];

            /// Its name in summaries.
            pub fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)* }
            }

            /// How often it strikes, per million of its chances, at full strength.
            fn chance(self) -> u32 {
                match self { $(Self::$fault => $chance,)* }
            }
        }
    };
}

faults! {
    // One chance per step.
    /// A process is killed; the database notices at once.
    Crash, "crash", 1_500;
    /// A process is gone and its connection stays open, with the locks it holds.
    MachineLost, "machine lost", 400;
    /// A process stands still and goes on later.
    Freeze, "freeze", 1_200;
    /// A process ends as it is told to.
    GracefulStop, "graceful stop", 500;
    /// The group gives partitions to others.
    Rebalance, "rebalance", 2_000;
    /// The group takes a member for dead.
    MemberLost, "member lost", 500;
    /// A member is told again of partitions that it has.
    RepeatedAssignment, "repeated assignment", 500;
    /// No broker answers.
    BrokerAway, "broker away", 300;
    /// The database is away; open transactions are gone.
    DatabaseAway, "database away", 300;
    /// The database is an older state of itself.
    Failover, "database failed over", 150;
    /// The oldest records of a partition are deleted, whether they were applied or not.
    Retention, "retention", 200;
    /// The newest records of a partition are gone; others take their place.
    Truncation, "log truncated", 150;
    /// The partition begins anew.
    Recreation, "log recreated", 100;
    /// The wall clock jumps.
    ClockJump, "clock jump", 1_000;
    /// The broker tells of another partition count for a while.
    PartitionCount, "other partition count", 100;

    /// A partition gets a leader that knows for a moment less of what is committed than the one before.
    LaggingLeader, "lagging leader", 1_000;

    // One chance per call.
    /// A request to the broker fails.
    LogRequest, "log request failed", 15_000;
    /// A call takes long.
    SlowCall, "slow call", 4_000;
    /// Records come again.
    RepeatedRecords, "repeated records", 30_000;
    /// After a seek, records from further on come first.
    EarlyRecords, "early records", 50_000;
    /// A partition hands out nothing for a while.
    Stall, "stall", 8_000;
    /// The client finds its offset out of range, wrongly.
    OutOfRange, "out of range", 1_000;
    /// A rebalance that concerns nobody.
    EmptyAssignment, "empty assignment", 2_000;
    /// The client ends for good.
    BrokenClient, "broken client", 200;
    /// A hint never arrives.
    HintLost, "hint lost", 100_000;
    /// The database asks to try again.
    Serialization, "serialization failure", 10_000;
    /// The connection is lost.
    ConnectionLost, "connection lost", 5_000;
    /// A commit is done and answered with an error.
    CommitAnswerLost, "commit done, answer lost", 20_000;
    /// A commit is not done and answered with an error.
    CommitLost, "commit lost", 20_000;
    /// A commit is answered with an error and done later.
    CommitLate, "commit done late", 15_000;
}

/// The first faults have a chance at each step, the others at each call.
const PER_STEP: usize = Fault::LogRequest as usize;

/// Counts by fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl FaultCounts {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How often it struck.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in Fault::ALL.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", fault.name(), self.of(*fault))?;
        }
        Ok(())
    }
}

/// How often each fault strikes in one run: a seed has a few of them often, some seldom, others never, so
/// that they meet each other in many ways.
#[derive(Debug, Clone)]
pub struct Profile([u32; Fault::ALL.len()]);

impl Profile {
    /// Draws a profile.
    pub fn draw(random: &mut SmallRng, can_go_back: bool) -> Self {
        let mut chances = [0; Fault::ALL.len()];
        for (chance, fault) in chances.iter_mut().zip(Fault::ALL) {
            let strength = match random.random_range(0..10) {
                0..=3 => 0,
                4..=7 => 1,
                8 => 3,
                _ => 8,
            };
            if can_go_back || *fault != Fault::Failover {
                *chance = fault.chance() * strength;
            }
        }
        Self(chances)
    }

    /// Whether it ever strikes.
    pub fn has(&self, fault: Fault) -> bool {
        self.0[fault as usize] > 0
    }

    /// What strikes after a step, if anything does.
    pub fn after_step(&self, random: &mut SmallRng) -> Option<Fault> {
        let mut drawn = random.random_range(0..1_000_000);
        for (fault, chance) in Fault::ALL.iter().zip(self.0).take(PER_STEP) {
            if drawn < chance {
                return Some(*fault);
            }
            drawn -= chance;
        }
        None
    }

    /// Whether the fault strikes.
    pub fn strikes(&self, fault: Fault, random: &mut SmallRng) -> bool {
        let chance = self.0[fault as usize];
        chance > 0 && random.random_range(0..1_000_000) < chance
    }
}
