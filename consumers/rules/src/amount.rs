//! Amounts of money in minor units.

use std::fmt;

/// An amount in minor units of its currency: 1 to [`Amount::MAX`]. Never a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount(i64);

impl Amount {
    /// The largest amount of one transaction: 10^15 minor units.
    pub const MAX: i64 = 1_000_000_000_000_000;

    /// `None` unless 1 <= `minor_units` <= [`Amount::MAX`].
    pub const fn new(minor_units: i64) -> Option<Self> {
        if minor_units >= 1 && minor_units <= Self::MAX {
            Some(Self(minor_units))
        } else {
            None
        }
    }

    /// Minor units, as stored and sent.
    pub const fn minor_units(self) -> i64 {
        self.0
    }

    /// Minor units, for sums.
    pub const fn wide(self) -> i128 {
        self.0 as i128
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        for (minor_units, good) in [
            (i64::MIN, false),
            (-1, false),
            (0, false),
            (1, true),
            (Amount::MAX, true),
            (Amount::MAX + 1, false),
            (i64::MAX, false),
        ] {
            assert_eq!(Amount::new(minor_units).is_some(), good, "{minor_units}");
        }
    }
}
