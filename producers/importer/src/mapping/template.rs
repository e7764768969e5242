//! Templates: text with columns and lookups in braces.

use std::collections::HashMap;

use crate::refused::{Refusal, Why};
use crate::source::csv::Row;

/// What templates can name: the file's columns, and the lookups that come before.
#[derive(Debug)]
pub(super) struct Names {
    columns: Vec<String>,
    lookups: Vec<String>,
    /// Where the columns are named, for messages: `line 1`.
    place: String,
}

/// Text with columns and lookups: `external:bank:{bank|lower}`. `{{` and `}}` are braces.
#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

/// Text that stands for another: the value of `key` is looked up, and what is found is a template.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) name: String,
    pub(super) key: Template,
    pub(super) values: HashMap<String, Template>,
    /// For keys that are not listed; without it the row is refused.
    pub(super) otherwise: Option<Template>,
}

/// What a template is filled with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) row: Row<'a>,
    pub(super) lookups: &'a [Lookup],
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Value(Place, Vec<Filter>),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Column(usize),
    Lookup(usize),
}

#[derive(Debug, Clone, Copy)]
enum Filter {
    Lower,
    Upper,
    /// Without white space: `CZ65 0800` becomes `CZ650800`.
    Compact,
}

impl Names {
    pub(super) fn new(columns: Vec<String>, place: String) -> Self {
        Self {
            columns,
            lookups: Vec::new(),
            place,
        }
    }

    /// Makes a lookup known to the templates that follow.
    pub(super) fn add_lookup(&mut self, name: &str) -> Result<(), String> {
        let is_column = self.columns.iter().any(|column| column == name);
        if is_column || self.lookup(name).is_some() {
            return Err(format!(
                "{name:?} is the name of a column or of another lookup"
            ));
        }
        self.lookups.push(name.to_owned());
        Ok(())
    }

    /// The index of a column that comes exactly once.
    pub(super) fn column(&self, name: &str) -> Result<usize, String> {
        let mut found = (0..self.columns.len()).filter(|i| self.columns[*i] == name);
        match (found.next(), found.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => Err(format!("column {name:?} comes twice in {}", self.place)),
            (None, _) => Err(format!(
                "no column {name:?} in {}: {}",
                self.place,
                self.columns.join(", ")
            )),
        }
    }

    fn lookup(&self, name: &str) -> Option<usize> {
        self.lookups.iter().position(|lookup| lookup == name)
    }

    fn place(&self, name: &str) -> Result<Place, String> {
        match self.lookup(name) {
            Some(index) => Ok(Place::Lookup(index)),
            None => self.column(name).map(Place::Column),
        }
    }

    /// What stands in braces: a name, or a name and filters.
    fn value(&self, text: &str) -> Result<Piece, String> {
        if let Ok(place) = self.place(text) {
            return Ok(Piece::Value(place, Vec::new()));
        }
        let mut parts = text.split('|');
        let place = self.place(parts.next().unwrap_or_default())?;
        let filters = parts.map(Filter::parse).collect::<Result<_, _>>()?;
        Ok(Piece::Value(place, filters))
    }
}

impl Template {
    pub(super) fn parse(text: &str, names: &Names) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(format!(
                    "{text:?} has a }} without a {{; a brace is written twice"
                ));
            } else {
                let (name, after) = rest
                    .split_once('}')
                    .ok_or_else(|| format!("{text:?} has a {{ that is never closed"))?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(names.value(name)?);
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// The template `{name}`.
    pub(super) fn of_name(name: &str, names: &Names) -> Result<Self, String> {
        names.value(name).map(|piece| Self(vec![piece]))
    }

    /// The text, if every row gets the same.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for a row, without white space around it: an empty column leaves none behind.
    pub(super) fn fill(&self, values: Values<'_>) -> Result<String, Refusal> {
        let mut text = String::new();
        self.fill_into(values, &mut text)?;
        text.truncate(text.trim_end().len());
        if text.starts_with(char::is_whitespace) {
            text = text.trim_start().to_owned();
        }
        Ok(text)
    }

    fn fill_into(&self, values: Values<'_>, into: &mut String) -> Result<(), Refusal> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => into.push_str(text),
                Piece::Value(place, filters) if filters.is_empty() => {
                    place.fill_into(values, into)?;
                }
                Piece::Value(place, filters) => {
                    let mut value = String::new();
                    place.fill_into(values, &mut value)?;
                    let value = filters.iter().fold(value, |value, f| f.apply(&value));
                    into.push_str(&value);
                }
            }
        }
        Ok(())
    }
}

impl Place {
    fn fill_into(self, values: Values<'_>, into: &mut String) -> Result<(), Refusal> {
        match self {
            Self::Column(index) => into.push_str(&values.row.value(index)),
            Self::Lookup(index) => values.lookups[index]
                .find(values)?
                .fill_into(values, into)?,
        }
        Ok(())
    }
}

impl Lookup {
    fn find(&self, values: Values<'_>) -> Result<&Template, Refusal> {
        let key = self.key.fill(values)?;
        let found = self.values.get(&key).or(self.otherwise.as_ref());
        found.ok_or_else(|| {
            let detail = format!("lookup {:?} does not list {key:?}", self.name);
            Refusal::new(Why::NotListed, detail)
        })
    }
}

impl Filter {
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "lower" => Ok(Self::Lower),
            "upper" => Ok(Self::Upper),
            "compact" => Ok(Self::Compact),
            _ => Err(format!("filter {name:?} is not lower, upper or compact")),
        }
    }

    fn apply(self, value: &str) -> String {
        match self {
            Self::Lower => value.to_lowercase(),
            Self::Upper => value.to_uppercase(),
            Self::Compact => value.split_whitespace().collect(),
        }
    }
}
