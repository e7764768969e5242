//! A transaction's fields as they were sent, borrowed from the bytes where that is possible.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The fields of a transaction before validation. Every value is representable, none is checked.
///
/// `N` and `T` are the forms of the amount and the time: minor units and microseconds since 1970 in
/// Avro, a number and RFC 3339 text in JSON. Fields that a newer writer has added are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire<'a, N = i64, T = i64> {
    /// A UUID as text.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// What sort of transaction.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Where the money comes from.
    #[serde(borrow)]
    pub debit_account: Cow<'a, str>,
    /// Where the money goes to.
    #[serde(borrow)]
    pub credit_account: Cow<'a, str>,
    /// Minor units.
    pub amount: N,
    /// ISO 4217 code.
    #[serde(borrow)]
    pub currency: Cow<'a, str>,
    /// When it happened.
    pub occurred_at: T,
    /// Free text.
    #[serde(borrow, default)]
    pub reference: Cow<'a, str>,
    /// The upstream system.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// Free key and value pairs.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
    /// Amount and time as they were written, where that is no value of theirs.
    #[serde(skip)]
    pub misread: Option<Box<Misread>>,
}

/// What was written for fields whose value is none of theirs: 12.5 for an amount, the 30th of February
/// for a time. The fields themselves then hold a value that is invalid too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misread {
    /// The text of the amount.
    pub amount: Option<String>,
    /// The text of the time.
    pub occurred_at: Option<String>,
}

impl<'a, N, T> Wire<'a, N, T> {
    /// The same fields with amount and time in another form.
    pub(crate) fn with<M, U>(
        self,
        amount: impl FnOnce(N) -> M,
        occurred_at: impl FnOnce(T) -> U,
    ) -> Wire<'a, M, U> {
        Wire {
            id: self.id,
            kind: self.kind,
            debit_account: self.debit_account,
            credit_account: self.credit_account,
            amount: amount(self.amount),
            currency: self.currency,
            occurred_at: occurred_at(self.occurred_at),
            reference: self.reference,
            source: self.source,
            metadata: self.metadata,
            misread: self.misread,
        }
    }
}

impl Wire<'_> {
    /// Minor units, where a whole number was written.
    pub fn amount_read(&self) -> Option<i64> {
        let misread = self.misread.as_ref().is_some_and(|m| m.amount.is_some());
        (!misread).then_some(self.amount)
    }
}

/// Key and value pairs, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Metadata<'a> {
    /// Sorts the pairs. `None` when a key comes twice.
    pub fn new(mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Option<Self> {
        pairs.sort_unstable();
        let unique = pairs.windows(2).all(|pair| pair[0].0 != pair[1].0);
        unique.then_some(Self(pairs))
    }

    /// The pairs in order of their keys.
    pub fn pairs(&self) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.0
    }

    /// Bytes of all keys and values together.
    pub fn size_bytes(&self) -> usize {
        self.0
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }
}

/// A string that borrows from the input where the format allows it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Metadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Metadata::new(pairs)
                    .ok_or_else(|| serde::de::Error::custom("metadata repeats a key"))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
