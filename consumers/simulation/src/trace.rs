//! What happened in a run: the last steps, to be read when it failed, and a hash over all of them.

use std::collections::VecDeque;
use std::fmt;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    at: u64,
    who: Who,
    what: &'static str,
    numbers: [i64; 3],
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A lane or an operator.
    Actor(usize),
    /// Nobody in particular.
    World,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at / 1_000_000, self.at % 1_000_000);
        let what = self.what;
        match self.who {
            Who::Actor(actor) => write!(f, "{seconds:>5}.{micros:06} actor {actor}  {what}"),
            Who::World => write!(f, "{seconds:>5}.{micros:06} world    {what}"),
        }?;
        for number in self.numbers.iter().filter(|number| **number != NONE) {
            write!(f, " {number}")?;
        }
        Ok(())
    }
}

/// Stands for no number.
pub const NONE: i64 = i64::MIN;

/// The steps of a run.
#[derive(Debug)]
pub struct Trace {
    kept: VecDeque<Entry>,
    kept_max: usize,
    hash: u64,
}

impl Trace {
    /// Keeps the last `kept_max` steps.
    pub fn new(kept_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_max,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a step.
    pub fn add(&mut self, at: u64, who: Who, what: &'static str, numbers: [i64; 3]) {
        let actor = match who {
            Who::Actor(actor) => actor as u64,
            Who::World => u64::MAX,
        };
        self.mix(at);
        self.mix(actor);
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        for number in numbers {
            self.mix(number.cast_unsigned());
        }
        if self.kept.len() >= self.kept_max {
            self.kept.pop_front();
        }
        self.kept.push_back(Entry {
            at,
            who,
            what,
            numbers,
        });
    }

    /// FNV-1a over everything that happened: two runs with the same hash went the same way.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last steps as text.
    pub fn last(&self) -> Vec<String> {
        self.kept.iter().map(Entry::to_string).collect()
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
