//! JSON text to a transaction, or to the code and field that are wrong.
//!
//! The first pass takes an object apart into names and raw values, whatever they are; the second reads
//! each field by itself. So every error knows its field. `serde_json` skips raw values without recursion,
//! and no field may hold a nested value, so depth costs nothing.

use std::borrow::Cow;
use std::fmt;

use millrace_rules::Reason;
use millrace_schemas::codec::parse_time;
use millrace_schemas::wire::{Metadata, Misread};
use millrace_schemas::{Transaction, Wire, ids};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

pub(crate) const MALFORMED_JSON: &str = "malformed_json";

/// A refused value may be as large as a body: as much as a person can read is enough.
const SHOWN_CHARS_MAX: usize = 80;

/// Why a text is no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Stable, for programs.
    pub(crate) code: &'static str,
    pub(crate) field: Option<Cow<'static, str>>,
    pub(crate) detail: String,
    /// Where the JSON is broken.
    pub(crate) position: Option<Position>,
    /// The transaction's id, where it could be read.
    pub(crate) id: Option<Uuid>,
}

/// Both from 1; columns are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Rejection {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            field: None,
            detail: detail.into(),
            position: None,
            id: None,
        }
    }

    fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn malformed(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        Self {
            position: Some(Position {
                line: error.line(),
                column: error.column(),
            }),
            ..Self::new(MALFORMED_JSON, what)
        }
    }
}

/// Bytes as text; what is not UTF-8 is not JSON.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.starts_with("\u{feff}".as_bytes()) {
        let detail =
            "the text begins with a byte order mark, which JSON may not have (RFC 8259, 8.1)";
        return Err(Rejection {
            position: Some(Position { line: 1, column: 1 }),
            ..Rejection::new(MALFORMED_JSON, detail)
        });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        Rejection {
            position: Some(Position {
                line: 1 + memchr::memchr_iter(b'\n', before).count(),
                column: 1 + before.len() - line_start,
            }),
            ..Rejection::new(MALFORMED_JSON, "the text is not UTF-8")
        }
    })
}

/// The elements of an array, unread; their syntax is checked.
pub(crate) fn elements(text: &str) -> Result<Vec<&RawValue>, Rejection> {
    serde_json::from_str(text).map_err(|error| Rejection::malformed(&error))
}

/// Reads one object. Without an id, `key` and the source give it.
pub(crate) fn parse<'a>(text: &'a str, key: Option<&str>) -> Result<Transaction<'a>, Rejection> {
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Err(error) => Rejection::malformed(&error),
            Ok(value) => Rejection::new(
                "not_an_object",
                format!("{} is not a transaction", type_of(value)),
            ),
        });
    }
    let entries: Entries<'_> =
        serde_json::from_str(text).map_err(|error| Rejection::malformed(&error))?;
    let mut fields = Fields::default();
    let read = fields.take(entries).and_then(|()| fields.read(key));
    read.map_err(|mut rejection| {
        rejection.id = fields.id();
        rejection
    })
}

/// The names and values of an object, in order, repeated ones too.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A string that borrows from the input where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(Field::ALL.len());
                while let Some((Text(name), value)) = map.next_entry()? {
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Kind,
    DebitAccount,
    CreditAccount,
    Amount,
    Currency,
    OccurredAt,
    Reference,
    Source,
    Metadata,
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Id,
        Self::Kind,
        Self::DebitAccount,
        Self::CreditAccount,
        Self::Amount,
        Self::Currency,
        Self::OccurredAt,
        Self::Reference,
        Self::Source,
        Self::Metadata,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Kind => "kind",
            Self::DebitAccount => "debit_account",
            Self::CreditAccount => "credit_account",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::OccurredAt => "occurred_at",
            Self::Reference => "reference",
            Self::Source => "source",
            Self::Metadata => "metadata",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// The raw values of the fields that are there.
#[derive(Default)]
struct Fields<'a>([Option<&'a RawValue>; Field::ALL.len()]);

impl<'a> Fields<'a> {
    /// Sorts the entries in; the first one that is too much is the error, but all are looked at.
    fn take(&mut self, entries: Entries<'a>) -> Result<(), Rejection> {
        let mut defect = None;
        for (name, value) in entries.0 {
            let found = match Field::from_name(&name) {
                Some(field) if self.0[field as usize].is_some() => Some(duplicate(field)),
                Some(field) => {
                    self.0[field as usize] = Some(value);
                    None
                }
                None => Some(unknown(&name)),
            };
            defect = defect.or(found);
        }
        defect.map_or(Ok(()), Err)
    }

    fn read(&self, key: Option<&str>) -> Result<Transaction<'a>, Rejection> {
        let kind = self.text(Field::Kind)?;
        let debit_account = self.text(Field::DebitAccount)?;
        let credit_account = self.text(Field::CreditAccount)?;
        let amount = whole_number(self.required(Field::Amount)?)?;
        let currency = self.text(Field::Currency)?;
        let time = self.text(Field::OccurredAt)?;
        let occurred_at = parse_time(&time).ok_or_else(|| shown(&time));
        let source = self.text(Field::Source)?;
        let id = match (self.get(Field::Id), key) {
            (Some(id), _) => text(Field::Id, id)?,
            (None, Some(key)) => ids::derive(&source, &[key]).to_string().into(),
            (None, None) => return Err(missing_id()),
        };
        let reference = self.get(Field::Reference);
        let metadata = self.get(Field::Metadata);
        let misread = Misread {
            amount: amount.clone().err(),
            occurred_at: occurred_at.clone().err(),
        };
        let wire = Wire {
            id,
            kind,
            debit_account,
            credit_account,
            // Both stand-ins are invalid, so that validation names them in its own order.
            amount: amount.unwrap_or(0),
            occurred_at: occurred_at.unwrap_or(i64::MIN),
            currency,
            reference: reference
                .map_or(Ok(Cow::Borrowed("")), |raw| text(Field::Reference, raw))?,
            source,
            metadata: metadata.map_or(Ok(Metadata::default()), pairs)?,
            misread: (misread != Misread::default()).then(|| Box::new(misread)),
        };
        Transaction::try_from(wire).map_err(|(_, invalid)| {
            Rejection::new(invalid.reason.as_str(), invalid.detail).field(field_of(invalid.reason))
        })
    }

    fn id(&self) -> Option<Uuid> {
        let text = text(Field::Id, self.get(Field::Id)?).ok()?;
        Uuid::try_parse(&text).ok()
    }

    fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.0[field as usize]
    }

    fn required(&self, field: Field) -> Result<&'a RawValue, Rejection> {
        self.get(field).ok_or_else(|| {
            let detail = format!("{} is required", field.name());
            Rejection::new("missing_field", detail).field(field.name())
        })
    }

    fn text(&self, field: Field) -> Result<Cow<'a, str>, Rejection> {
        text(field, self.required(field)?)
    }
}

fn text(field: Field, raw: &RawValue) -> Result<Cow<'_, str>, Rejection> {
    if !raw.get().starts_with('"') {
        return Err(invalid_type(field, type_of(raw), "a string"));
    }
    // Escapes are only looked at now: one may be half of a surrogate pair.
    let Text(text) = serde_json::from_str(raw.get())
        .map_err(|_| invalid_type(field, "a string with half a surrogate pair", "Unicode text"))?;
    Ok(text)
}

/// An integer of 64 bits, or the text of another number: never rounded.
fn whole_number(raw: &RawValue) -> Result<Result<i64, String>, Rejection> {
    if raw
        .get()
        .starts_with(|c: char| c == '-' || c.is_ascii_digit())
    {
        Ok(raw.get().parse().map_err(|_| shown(raw.get())))
    } else {
        Err(invalid_type(Field::Amount, type_of(raw), "a number"))
    }
}

fn pairs(raw: &RawValue) -> Result<Metadata<'_>, Rejection> {
    if !raw.get().starts_with('{') {
        return Err(invalid_type(
            Field::Metadata,
            type_of(raw),
            "an object of strings",
        ));
    }
    let Entries(entries) = serde_json::from_str(raw.get()).map_err(|_| {
        invalid_type(
            Field::Metadata,
            "an object with half a surrogate pair in a name",
            "an object of strings",
        )
    })?;
    let pair = |(name, value)| Ok((name, text(Field::Metadata, value)?));
    let pairs = entries.into_iter().map(pair).collect::<Result<_, _>>()?;
    Metadata::new(pairs).ok_or_else(|| {
        let field = field_of(Reason::InvalidMetadata);
        Rejection::new(Reason::InvalidMetadata.as_str(), "metadata repeats a key").field(field)
    })
}

fn type_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn field_of(reason: Reason) -> &'static str {
    match reason {
        Reason::SameAccount => Field::CreditAccount.name(),
        other => other.as_str().trim_start_matches("invalid_"),
    }
}

fn invalid_type(field: Field, found: &str, expected: &str) -> Rejection {
    let detail = format!("{} is {found}, not {expected}", field.name());
    Rejection::new("invalid_type", detail).field(field.name())
}

fn duplicate(field: Field) -> Rejection {
    let detail = format!("{} is there twice", field.name());
    Rejection::new("duplicate_field", detail).field(field.name())
}

fn unknown(name: &str) -> Rejection {
    let name = shown(name);
    let detail = format!("a transaction has no field {name:?}");
    Rejection::new("unknown_field", detail).field(name)
}

fn missing_id() -> Rejection {
    let detail = "id is required, or for a single object the header Idempotency-Key: an id made \
                  here would make every retry another transaction";
    Rejection::new("missing_id", detail).field(Field::Id.name())
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
