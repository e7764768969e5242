//! Bytes to rows, one after the other, in bounded memory.
//!
//! | module | holds |
//! |---|---|
//! | [`input`] | files and standard input, decompressed, with the bytes read so far |
//! | [`lines`] | a window that slides over the lines |
//! | [`csv`] | rows of columns |
//! | [`ndjson`] | one transaction as JSON in each line |
//! | [`avro`] | Avro object container files |

mod avro;
pub(crate) mod csv;
pub(crate) mod input;
pub(crate) mod lines;
mod ndjson;

use std::borrow::Cow;
use std::io::{self, Read};

use millrace_rules::AccountId;
use millrace_schemas::wire::Metadata;
use millrace_schemas::{Transaction, Wire};

pub(crate) use avro::Records;
pub(crate) use ndjson::Objects;

use crate::mapping::Mapper;
use crate::refused::{Refusal, RefusedRow, Why};
use lines::ROW_BYTES_MAX;

/// How much is kept of a line that is too long.
const RAW_SHOWN_BYTES: usize = 1024;

/// What input is read from.
pub(crate) type Bytes = Box<dyn Read + Send>;

/// Where rows come from.
pub(crate) enum Source {
    Csv(csv::Rows<Bytes>, Box<Mapper>),
    Ndjson(Objects<Bytes>),
    Avro(Box<Records>),
}

/// What a row turned out to be.
#[derive(Debug)]
pub(crate) enum Item {
    Good {
        line: u64,
        transaction: Transaction<'static>,
    },
    Refused {
        row: RefusedRow,
        raw: String,
    },
}

/// A row that is no transaction, as it stands in the input.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) refusal: Refusal,
    pub(crate) raw: String,
}

/// The input cannot be read any further.
#[derive(Debug, thiserror::Error)]
#[error("{unit} {line}: {problem}")]
pub(crate) struct Unreadable {
    pub(crate) unit: &'static str,
    pub(crate) line: u64,
    pub(crate) problem: String,
}

impl Source {
    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Unreadable> {
        match self {
            Self::Csv(rows, mapper) => {
                let line = rows.line();
                let next = rows
                    .next()
                    .map_err(|error| Unreadable::line(line, &error))?;
                Ok(next.map(|(line, row)| Item::of_csv(line, row, mapper)))
            }
            Self::Ndjson(objects) => objects.next(),
            Self::Avro(records) => records.next(),
        }
    }
}

impl Item {
    /// Bytes that it keeps in memory beyond a transaction's few hundred.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Good { transaction, .. } => transaction.metadata.size_bytes(),
            Self::Refused { raw, .. } => raw.len(),
        }
    }

    fn new(line: u64, result: Result<Transaction<'static>, Broken>) -> Self {
        match result {
            Ok(transaction) => Self::Good { line, transaction },
            Err(Broken { refusal, raw }) => Self::Refused {
                row: RefusedRow {
                    line,
                    why: refusal.why,
                    detail: refusal.detail,
                },
                raw,
            },
        }
    }

    fn of_csv(line: u64, outcome: csv::Outcome<'_>, mapper: &Mapper) -> Self {
        let transaction = outcome.and_then(|row| {
            mapper.transaction(row).map_err(|refusal| Broken {
                refusal,
                raw: row.raw().to_owned(),
            })
        });
        Self::new(line, transaction)
    }
}

impl Broken {
    fn too_long(raw: String) -> Self {
        let detail = format!("the line has more than {ROW_BYTES_MAX} bytes; raw is its beginning");
        Self {
            refusal: Refusal::new(Why::TooLong, detail),
            raw,
        }
    }
}

impl Unreadable {
    fn line(line: u64, error: &io::Error) -> Self {
        Self {
            unit: "line",
            line,
            problem: input::problem(error),
        }
    }
}

/// Validates the fields and makes them independent of what they were read from.
fn owned_transaction(wire: Wire<'_>) -> Result<Transaction<'static>, Refusal> {
    let transaction = Transaction::try_from(wire).map_err(|(_, invalid)| Refusal::from(invalid))?;
    let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    let pairs = transaction.metadata.pairs();
    let pairs = pairs
        .iter()
        .map(|(key, value)| (owned(key.clone()), owned(value.clone())));
    Ok(Transaction {
        id: transaction.id,
        kind: owned(transaction.kind),
        debit_account: AccountId::into_owned(transaction.debit_account),
        credit_account: AccountId::into_owned(transaction.credit_account),
        amount: transaction.amount,
        currency: transaction.currency,
        occurred_at: transaction.occurred_at,
        reference: owned(transaction.reference),
        source: owned(transaction.source),
        metadata: Metadata::new(pairs.collect()).expect("the keys were unique before"),
    })
}
