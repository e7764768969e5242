//! The mapping held against the columns, and applied to rows.

use std::borrow::Cow;

use millrace_rules::{AccountId, Currency, Reason};
use millrace_schemas::transaction::{KIND_CHARS_MAX, SOURCE_CHARS_MAX};
use millrace_schemas::wire::Metadata;
use millrace_schemas::{Transaction, Wire, ids};

use super::decimal::{self, Style};
use super::file::{AmountTable, DirectionTable, IdTable, LookupTable, MapFile, Sign, Unit};
use super::template::{Lookup, Names, Template, Values};
use super::time::TimeStyle;
use crate::refused::{Refusal, Why};
use crate::source::csv::Row;

/// What is wrong with a mapping: the key, and the problem with its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub(crate) struct Error {
    pub(crate) key: String,
    pub(crate) problem: String,
}

/// The columns of a file and where they are named.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    /// For messages: `line 1`.
    pub(crate) place: String,
}

/// A mapping that fits the columns.
#[derive(Debug)]
pub(crate) struct Mapper {
    source: String,
    id: Id,
    kind: Template,
    currency: Template,
    reference: Template,
    occurred_at: Template,
    time: TimeStyle,
    amount: Template,
    style: Style,
    unit: Unit,
    /// Whether a direction asks for the amount's sign.
    signed: bool,
    directions: Vec<Direction>,
    lookups: Vec<Lookup>,
    metadata: Vec<(String, Template)>,
}

#[derive(Debug)]
enum Id {
    Derived(Vec<usize>),
    Column(usize),
}

#[derive(Debug)]
struct Direction {
    when: Vec<Condition>,
    sign: Option<Sign>,
    debit: Template,
    credit: Template,
}

#[derive(Debug)]
struct Condition {
    name: String,
    value: Template,
    any_of: Vec<String>,
}

/// Reads the mapping file's text.
pub(crate) fn parse(text: &str) -> Result<MapFile, String> {
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

impl Mapper {
    /// Checks everything that can be wrong before the first row.
    pub(crate) fn new(file: MapFile, columns: Columns) -> Result<Self, Error> {
        let mut names = Names::new(columns.names, columns.place);
        check_constant("source", &file.source, SOURCE_CHARS_MAX)?;
        let lookups = new_lookups(file.lookups, &mut names)?;
        let template = |key: &str, text: &str| at(key, Template::parse(text, &names));
        let kind = template("kind", &file.kind)?;
        if let Some(literal) = kind.literal() {
            check_constant("kind", literal, KIND_CHARS_MAX)?;
        }
        let currency = template("currency", &file.currency)?;
        if let Some(code) = currency.literal() {
            at("currency", parse_currency(code).map_err(|r| r.detail))?;
        }
        let metadata = file.metadata.iter().map(|(name, text)| {
            let template = template(&format!("metadata.{name}"), text)?;
            Ok((name.clone(), template))
        });
        Ok(Self {
            id: new_id(file.id, &names)?,
            kind,
            currency,
            reference: template("reference", &file.reference)?,
            occurred_at: template("occurred_at.value", &file.occurred_at.value)?,
            time: at(
                "occurred_at",
                TimeStyle::new(&file.occurred_at.format, &file.occurred_at.time_zone),
            )?,
            amount: template("amount.value", &file.amount.value)?,
            style: new_style(&file.amount)?,
            unit: file.amount.unit,
            signed: file.directions.iter().any(|d| d.sign.is_some()),
            metadata: metadata.collect::<Result<_, Error>>()?,
            directions: new_directions(file.directions, &names)?,
            source: file.source,
            lookups,
        })
    }

    /// The row's transaction.
    pub(crate) fn transaction(&self, row: Row<'_>) -> Result<Transaction<'static>, Refusal> {
        let values = Values {
            row,
            lookups: &self.lookups,
        };
        let currency = parse_currency(&self.currency.fill(values)?)?;
        let signed = self.amount(values, currency)?;
        let direction = self.direction(values, signed)?;
        let wire = Wire {
            id: Cow::Owned(self.id(row)?),
            kind: Cow::Owned(self.kind.fill(values)?),
            debit_account: Cow::Owned(direction.debit.fill(values)?),
            credit_account: Cow::Owned(direction.credit.fill(values)?),
            amount: if self.signed { signed.abs() } else { signed },
            currency: currency.code().into(),
            occurred_at: self.occurred_at(values)?,
            reference: Cow::Owned(self.reference.fill(values)?),
            source: Cow::Owned(self.source.clone()),
            metadata: self.metadata(values)?,
            misread: None,
        };
        Transaction::try_from(wire).map_err(|(_, invalid)| invalid.into())
    }

    fn id(&self, row: Row<'_>) -> Result<String, Refusal> {
        match &self.id {
            Id::Column(column) => Ok(row.value(*column).into_owned()),
            Id::Derived(columns) => {
                let values: Vec<_> = columns.iter().map(|column| row.value(*column)).collect();
                let parts: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                let why = Why::Invalid(Reason::InvalidId);
                if parts.iter().all(|part| part.is_empty()) {
                    return Err(Refusal::new(why, "the columns of the id are all empty"));
                }
                if let Some(part) = parts.iter().find(|p| p.contains(ids::SEPARATOR)) {
                    // Two rows could get the same id.
                    let detail = format!("the id's column {part:?} has the character U+001F");
                    return Err(Refusal::new(why, detail));
                }
                Ok(ids::derive(&self.source, &parts).to_string())
            }
        }
    }

    fn amount(&self, values: Values<'_>, currency: Currency) -> Result<i64, Refusal> {
        let text = self.amount.fill(values)?;
        let exponent = match self.unit {
            Unit::Major => currency.exponent(),
            Unit::Minor => 0,
        };
        decimal::minor_units(&text, self.style, exponent).map_err(|problem| {
            let detail = format!("amount {problem} ({currency})");
            Refusal::new(Why::Invalid(Reason::InvalidAmount), detail)
        })
    }

    fn occurred_at(&self, values: Values<'_>) -> Result<i64, Refusal> {
        let text = self.occurred_at.fill(values)?;
        self.time.microseconds(&text).map_err(|problem| {
            let detail = format!("occurred_at {problem}");
            Refusal::new(Why::Invalid(Reason::InvalidOccurredAt), detail)
        })
    }

    fn direction(&self, values: Values<'_>, amount: i64) -> Result<&Direction, Refusal> {
        for direction in &self.directions {
            if direction.fits(values, amount)? {
                return Ok(direction);
            }
        }
        Err(Refusal::new(
            Why::NoDirection,
            self.no_direction(values, amount),
        ))
    }

    fn no_direction(&self, values: Values<'_>, amount: i64) -> String {
        let mut seen: Vec<String> = Vec::new();
        for condition in self.directions.iter().flat_map(|direction| &direction.when) {
            let value = condition.value.fill(values).unwrap_or_default();
            let text = format!("{} = {value:?}", condition.name);
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        if self.signed {
            seen.push(format!("amount = {amount}"));
        }
        format!("no direction fits {}", seen.join(", "))
    }

    fn metadata(&self, values: Values<'_>) -> Result<Metadata<'static>, Refusal> {
        let mut pairs = Vec::with_capacity(self.metadata.len());
        for (name, template) in &self.metadata {
            let value = template.fill(values)?;
            if !value.is_empty() {
                pairs.push((Cow::Owned(name.clone()), Cow::Owned(value)));
            }
        }
        Ok(Metadata::new(pairs).expect("a table of TOML does not repeat a key"))
    }
}

impl Direction {
    fn fits(&self, values: Values<'_>, amount: i64) -> Result<bool, Refusal> {
        let sign_fits = match self.sign {
            None => true,
            Some(Sign::Positive) => amount >= 0,
            Some(Sign::Negative) => amount < 0,
        };
        if !sign_fits {
            return Ok(false);
        }
        for condition in &self.when {
            let value = condition.value.fill(values)?;
            if !condition.any_of.contains(&value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn new_id(table: IdTable, names: &Names) -> Result<Id, Error> {
    match (table.derive_from, table.column) {
        (Some(columns), None) if !columns.is_empty() => {
            let indexes = columns.iter().map(|column| names.column(column)).collect();
            Ok(Id::Derived(at("id.derive_from", indexes)?))
        }
        (None, Some(column)) => Ok(Id::Column(at("id.column", names.column(&column))?)),
        _ => at(
            "id",
            Err("give either derive_from, with at least one column, or column".into()),
        ),
    }
}

fn new_style(table: &AmountTable) -> Result<Style, Error> {
    let forbidden = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-');
    if forbidden(table.decimal) {
        let problem = format!("{:?} is part of a number itself", table.decimal);
        return at("amount.decimal", Err(problem));
    }
    match table.thousands {
        Some(c) if forbidden(c) || c == table.decimal => at(
            "amount.thousands",
            Err(format!(
                "{c:?} is the decimal separator or part of a number itself"
            )),
        ),
        thousands => Ok(Style {
            decimal: table.decimal,
            thousands,
        }),
    }
}

fn new_lookups(tables: Vec<LookupTable>, names: &mut Names) -> Result<Vec<Lookup>, Error> {
    let mut lookups = Vec::with_capacity(tables.len());
    for table in tables {
        let key = |part: &str| format!("lookup {:?}, {part}", table.name);
        let template = |part: &str, text: &str| at(&key(part), Template::parse(text, names));
        let values = table.values.iter().map(|(value, text)| {
            let template = template(&format!("values.{value:?}"), text)?;
            Ok((value.clone(), template))
        });
        let otherwise = table.otherwise.as_deref();
        lookups.push(Lookup {
            values: values.collect::<Result<_, Error>>()?,
            otherwise: otherwise
                .map(|text| template("otherwise", text))
                .transpose()?,
            key: template("key", &table.key)?,
            name: table.name.clone(),
        });
        at(&key("name"), names.add_lookup(&table.name))?;
    }
    Ok(lookups)
}

fn new_directions(tables: Vec<DirectionTable>, names: &Names) -> Result<Vec<Direction>, Error> {
    let mut directions = Vec::with_capacity(tables.len());
    for (i, table) in tables.into_iter().enumerate() {
        let key = |part: &str| format!("direction {}, {part}", i + 1);
        let account = |part: &str, text: &str| {
            let template = at(&key(part), Template::parse(text, names))?;
            match template.literal() {
                Some(id) if AccountId::parse(id.into()).is_err() => {
                    at(&key(part), Err(format!("{id:?} is not an account id")))
                }
                _ => Ok(template),
            }
        };
        let debit = account("debit", &table.debit)?;
        let credit = account("credit", &table.credit)?;
        let when = table.when.into_iter().map(|(name, values)| {
            let value = at(&key("when"), Template::of_name(&name, names))?;
            let any_of = values.into_vec();
            Ok(Condition {
                name,
                value,
                any_of,
            })
        });
        directions.push(Direction {
            when: when.collect::<Result<_, Error>>()?,
            sign: table.sign,
            debit,
            credit,
        });
    }
    if directions.is_empty() {
        return at("direction", Err("at least one is needed".into()));
    }
    Ok(directions)
}

fn parse_currency(code: &str) -> Result<Currency, Refusal> {
    Currency::parse(code).ok_or_else(|| {
        let shown: String = code.chars().take(80).collect();
        let detail = format!("currency {shown:?} is not an ISO 4217 code with minor units");
        Refusal::new(Why::Invalid(Reason::InvalidCurrency), detail)
    })
}

/// The text that every row gets must be valid; templates are checked row by row.
fn check_constant(key: &str, text: &str, chars_max: usize) -> Result<(), Error> {
    let printable = !text.chars().any(char::is_control);
    if printable && (1..=chars_max).contains(&text.chars().count()) {
        return Ok(());
    }
    at(
        key,
        Err(format!(
            "{text:?} is not 1 to {chars_max} characters without control characters"
        )),
    )
}

fn at<T>(key: &str, result: Result<T, String>) -> Result<T, Error> {
    result.map_err(|problem| Error {
        key: key.to_owned(),
        problem,
    })
}
