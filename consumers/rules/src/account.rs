//! Account ids and what an account may do.

use std::borrow::Cow;
use std::fmt;

/// The longest account id in bytes.
pub const ACCOUNT_BYTES_MAX: usize = 64;

/// What an account id looks like, as a regular expression.
pub const ACCOUNT_PATTERN: &str = "^[a-z0-9][A-Za-z0-9._:-]{0,63}$";

/// Ids that begin with this are the outside world: never limited, may go negative.
pub const EXTERNAL_PREFIX: &str = "external:";

/// An account id, as [`ACCOUNT_PATTERN`] says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId<'a>(Cow<'a, str>);

impl<'a> AccountId<'a> {
    /// Gives the id back as an error when it does not fit the pattern.
    pub fn parse(id: Cow<'a, str>) -> Result<Self, Cow<'a, str>> {
        if is_account(id.as_bytes()) {
            Ok(Self(id))
        } else {
            Err(id)
        }
    }

    /// Whether this is the outside world.
    pub fn is_external(&self) -> bool {
        self.0.starts_with(EXTERNAL_PREFIX)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same id, owned.
    pub fn into_owned(self) -> AccountId<'static> {
        AccountId(Cow::Owned(self.0.into_owned()))
    }

    /// The text itself.
    pub fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

impl fmt::Display for AccountId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_account(id: &[u8]) -> bool {
    let first = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    id.len() <= ACCOUNT_BYTES_MAX && id.first().is_some_and(first) && id.iter().all(rest)
}

/// What an account may do. Without a row an account is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Debits and credits.
    #[default]
    Open,
    /// Credits only.
    Frozen,
    /// Neither.
    Closed,
}

impl Status {
    /// Every status, for help texts and tables.
    pub const ALL: [Self; 3] = [Self::Open, Self::Frozen, Self::Closed];

    /// The stable name, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_holds_at_its_edges() {
        let longest = "a".repeat(64);
        for good in [
            "a",
            "0",
            "acc-1",
            "external:bank:0800",
            "a.B_c:d-9",
            &longest,
        ] {
            assert!(AccountId::parse(good.into()).is_ok(), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in [
            "", "A", "-a", ":a", "a b", "a\u{0}", "é", "aé", "😀", "a/b", &too_long,
        ] {
            assert_eq!(AccountId::parse(bad.into()), Err(bad.into()), "{bad}");
        }
    }

    #[test]
    fn only_the_prefix_is_external() {
        for (id, external) in [
            ("external:x", true),
            ("external", false),
            ("my-external:x", false),
        ] {
            assert_eq!(
                AccountId::parse(id.into()).unwrap().is_external(),
                external,
                "{id}"
            );
        }
    }

    #[test]
    fn status_names_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.as_str()), Some(status));
        }
        assert_eq!(Status::from_name("Open"), None);
    }
}
