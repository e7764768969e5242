//! The mapping file as it is written: TOML to structs. An unknown key is an error that names it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file. Every text is a template unless it says otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MapFile {
    /// The upstream system; the same for every row, no template.
    pub(crate) source: String,
    pub(crate) kind: String,
    /// ISO 4217 code.
    pub(crate) currency: String,
    #[serde(default)]
    pub(crate) reference: String,
    #[serde(default)]
    pub(crate) file: FileTable,
    pub(crate) id: IdTable,
    pub(crate) occurred_at: TimeTable,
    pub(crate) amount: AmountTable,
    #[serde(default, rename = "lookup")]
    pub(crate) lookups: Vec<LookupTable>,
    #[serde(rename = "direction")]
    pub(crate) directions: Vec<DirectionTable>,
    /// Keys and templates; what comes out empty is left out.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// How the file is written. White space around values is never part of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileTable {
    /// One ASCII character.
    pub(crate) delimiter: String,
    /// One ASCII character, or nothing where quotes are ordinary characters.
    pub(crate) quote: String,
    pub(crate) line_end: LineEnd,
    /// Without its line end the last line may be cut off, in the middle of an amount even.
    pub(crate) final_line_end: FinalLineEnd,
    /// Whether the first line names the columns.
    pub(crate) header: bool,
    /// The columns, where there is no header; with a header it must be the same.
    pub(crate) columns: Vec<String>,
    pub(crate) encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LineEnd {
    Crlf,
    Lf,
    /// Either, line by line.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FinalLineEnd {
    /// A last line without is a row like any other.
    Optional,
    /// A last line without is refused.
    Required,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
}

/// Exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdTable {
    /// Columns that together are unique in all files of this source, for ever: rows that agree in them
    /// are the same transaction.
    pub(crate) derive_from: Option<Vec<String>>,
    /// A column that holds a UUID.
    pub(crate) column: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeTable {
    pub(crate) value: String,
    /// `strptime`, or `rfc3339`.
    pub(crate) format: String,
    /// IANA name.
    #[serde(default = "utc")]
    pub(crate) time_zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AmountTable {
    pub(crate) value: String,
    #[serde(default = "point")]
    pub(crate) decimal: char,
    pub(crate) thousands: Option<char>,
    #[serde(default)]
    pub(crate) unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Crowns, euros.
    #[default]
    Major,
    /// Hellers, cents.
    Minor,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LookupTable {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) otherwise: Option<String>,
}

/// The first that fits a row decides its accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectionTable {
    /// Columns or lookups, and the values that each may have. All must fit.
    #[serde(default)]
    pub(crate) when: BTreeMap<String, OneOrMany>,
    /// The sign of the amount. Where any direction asks for it, negative amounts are allowed and move
    /// their absolute value.
    pub(crate) sign: Option<Sign>,
    pub(crate) debit: String,
    pub(crate) credit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sign {
    Positive,
    Negative,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

impl Default for FileTable {
    fn default() -> Self {
        Self {
            delimiter: ",".into(),
            quote: "\"".into(),
            line_end: LineEnd::Any,
            final_line_end: FinalLineEnd::Optional,
            header: true,
            columns: Vec::new(),
            encoding: Encoding::Utf8,
        }
    }
}

fn utc() -> String {
    "UTC".into()
}

fn point() -> char {
    '.'
}
