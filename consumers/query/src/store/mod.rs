//! What is read from schema `reports`, one file per noun. Every value is a parameter, every time is
//! RFC 3339 text in UTC to the microsecond, every sum a whole number of any size.
//!
//! | module | holds |
//! |---|---|
//! | [`transactions`] | a transaction by id, the latest |
//! | [`threads`] | an account's transactions |
//! | [`accounts`] | balances of an account, over time, the largest |
//! | [`partitions`] | how far each partition is |
//! | [`overview`] | what the console's first page shows |

pub mod accounts;
pub mod overview;
pub mod partitions;
pub mod threads;
pub mod transactions;

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// A whole number of any size: minor units, counts. Read as text, shown as a JSON number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = i64)]
pub struct Whole(pub i128);

impl TryFrom<String> for Whole {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl Serialize for Whole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i128(self.0)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time column as RFC 3339 text under its own name.
macro_rules! time {
    ($name:literal) => {
        concat!(
            "to_char(",
            $name,
            " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        )
    };
}
pub(crate) use time;
