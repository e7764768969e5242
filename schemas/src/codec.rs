//! Bytes to fields and back.
//!
//! | first bytes or header | encoding |
//! |---|---|
//! | `C3 01`, 8 bytes of fingerprint | Avro single-object encoding |
//! | `00`, 4 bytes of schema id | Confluent's wire format; needs a schema registry |
//! | header `content-type: application/json` | JSON |
//!
//! Avro is decoded by `serde_avro_fast` with the writer's schema, straight into borrowed fields;
//! `apache-avro` parses the schemas, decides which writers can be read, and is what the tests hold
//! the fast decoder against.

use std::borrow::Cow;
use std::io::BufRead as _;
use std::sync::LazyLock;

use apache_avro::schema_compatibility::SchemaCompatibility;
use jiff::Timestamp;
use serde::Deserialize;
use serde_avro_fast::Schema;
use serde_avro_fast::schema::SchemaError;
use serde_avro_fast::ser::SerializerConfig;
use serde_json::value::RawValue;

use crate::Transaction;
use crate::wire::{Misread, Wire};

/// The schema that this build writes.
pub const SCHEMA: &str = include_str!("../avro/transaction.avsc");

/// Every writer schema that this build knows, the one it writes first.
const WRITER_SCHEMAS: [&str; 1] = [SCHEMA];

const SINGLE_OBJECT_MARKER: [u8; 2] = [0xc3, 0x01];
const SINGLE_OBJECT_HEADER_BYTES: usize = 10;
const CONFLUENT_MAGIC: u8 = 0;
const CONFLUENT_HEADER_BYTES: usize = 5;

/// What the record's headers say of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// Avro, in whichever framing the first bytes show. The default without a header.
    Avro,
    /// `application/json`, with or without parameters.
    Json,
}

impl ContentType {
    /// The header's name.
    pub const HEADER: &'static str = "content-type";

    /// Reads the header's value; anything but JSON leaves the decision to the first bytes.
    pub fn from_header(value: &[u8]) -> Self {
        let essence = value
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else {
            Self::Avro
        }
    }
}

/// Why bytes could not be understood. Both park the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A schema that is not known here; it may become known.
    #[error("unknown writer schema {0}")]
    UnknownSchema(String),
    /// Not a transaction in any encoding.
    #[error("{0}")]
    Undecodable(String),
}

/// Decodes a record's value.
pub fn decode(bytes: &[u8], content_type: ContentType) -> Result<Wire<'_>, DecodeError> {
    match content_type {
        ContentType::Json => decode_json(bytes),
        ContentType::Avro => decode_avro(bytes),
    }
}

/// Decodes one JSON object; unknown fields and repeated ones are errors. An amount or a time that is
/// none does not keep the rest from being read: it is in [`Wire::misread`].
pub fn decode_json(bytes: &[u8]) -> Result<Wire<'_>, DecodeError> {
    let mut unknown = None;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let wire: Wire<'_, &RawValue, &RawValue> =
        serde_ignored::deserialize(&mut json, |path| unknown = Some(path.to_string()))
            .map_err(undecodable)?;
    json.end().map_err(undecodable)?;
    match unknown {
        None => Ok(read_values(wire)),
        Some(field) => Err(undecodable(format!("unknown field {field:?}"))),
    }
}

fn read_values<'a>(wire: Wire<'a, &RawValue, &RawValue>) -> Wire<'a> {
    let amount = whole_number(wire.amount.get());
    let occurred_at = time(wire.occurred_at.get());
    let misread = Misread {
        amount: amount.clone().err(),
        occurred_at: occurred_at.clone().err(),
    };
    Wire {
        misread: (misread != Misread::default()).then(|| Box::new(misread)),
        // Both stand-ins are invalid, so that the record is refused.
        ..wire.with(|_| amount.unwrap_or(0), |_| occurred_at.unwrap_or(i64::MIN))
    }
}

fn whole_number(json: &str) -> Result<i64, String> {
    json.parse().map_err(|_| beginning(json))
}

fn time(json: &str) -> Result<i64, String> {
    let text: Option<Cow<'_, str>> = serde_json::from_str(json).ok();
    text.and_then(|text| parse_time(&text))
        .ok_or_else(|| beginning(json))
}

/// RFC 3339 text as microseconds since 1970; every JSON input reads times like this.
pub fn parse_time(text: &str) -> Option<i64> {
    text.parse().ok().map(Timestamp::as_microsecond)
}

/// The transaction as Avro in single-object encoding, appended to `into`.
pub fn encode(transaction: &Transaction<'_>, into: &mut Vec<u8>) {
    let mut config = SerializerConfig::new(&WRITERS[0].schema);
    into.extend_from_slice(&WRITERS[0].header);
    serde_avro_fast::to_datum(&transaction.to_wire(), into, &mut config)
        .expect("a valid transaction fits its schema and memory does not fail to write");
}

/// The transaction as a JSON object, the form of NDJSON files and of the HTTP API.
pub fn encode_json(transaction: &Transaction<'_>) -> String {
    let time = |micros| Timestamp::from_microsecond(micros).expect("the time was validated");
    serde_json::to_string(&transaction.to_wire().with(|amount| amount, time))
        .expect("a valid transaction has only strings and integers")
}

/// Whether the current schema can read what this one writes, and why not. A time in other units
/// would be read without complaint as another time, so its unit must be the same.
pub fn check_writer(text: &str) -> Result<(), String> {
    let parse = |text| apache_avro::Schema::parse_str(text).map_err(|e| e.to_string());
    let (writer, reader) = (parse(text)?, parse(SCHEMA)?);
    SchemaCompatibility::can_read(&writer, &reader).map_err(|e| e.to_string())?;
    let time = |schema: &apache_avro::Schema| match schema {
        apache_avro::Schema::Record(record) => {
            let mut fields = record.fields.iter();
            let field = fields.find(|field| field.name == "occurred_at");
            field.map(|field| field.schema.clone())
        }
        _ => None,
    };
    if time(&writer) == time(&reader) {
        Ok(())
    } else {
        Err("occurred_at is not a timestamp-micros".into())
    }
}

struct Writer {
    header: [u8; SINGLE_OBJECT_HEADER_BYTES],
    schema: Schema,
}

static WRITERS: LazyLock<Vec<Writer>> = LazyLock::new(|| {
    let known = |text: &&str| Writer::parse(text).expect("a built-in schema can be read");
    WRITER_SCHEMAS.iter().map(known).collect()
});

impl Writer {
    /// Takes a writer's schema whose records the current schema can read.
    fn parse(text: &str) -> Result<Self, String> {
        check_writer(text)?;
        let schema: Schema = text.parse().map_err(|e: SchemaError| e.to_string())?;
        let mut header = [0; SINGLE_OBJECT_HEADER_BYTES];
        header[..2].copy_from_slice(&SINGLE_OBJECT_MARKER);
        header[2..].copy_from_slice(schema.rabin_fingerprint());
        Ok(Self { header, schema })
    }
}

fn decode_avro(bytes: &[u8]) -> Result<Wire<'_>, DecodeError> {
    if let Some((header, datum)) = bytes.split_first_chunk::<SINGLE_OBJECT_HEADER_BYTES>()
        && header[..2] == SINGLE_OBJECT_MARKER
    {
        let writer = WRITERS.iter().find(|writer| writer.header == *header);
        let schema = &writer
            .ok_or_else(|| unknown_fingerprint(&header[2..]))?
            .schema;
        return decode_datum(datum, schema);
    }
    if bytes.first() == Some(&CONFLUENT_MAGIC)
        && let Some(header) = bytes.first_chunk::<CONFLUENT_HEADER_BYTES>()
    {
        let [_, id @ ..] = *header;
        let id = u32::from_be_bytes(id);
        return Err(DecodeError::UnknownSchema(format!(
            "{id} (no schema registry is set)"
        )));
    }
    let start = &bytes[..bytes.len().min(4)];
    Err(DecodeError::Undecodable(format!(
        "{} bytes that begin with {start:02x?} are neither Avro nor marked as JSON",
        bytes.len()
    )))
}

fn decode_datum<'a>(datum: &'a [u8], schema: &Schema) -> Result<Wire<'a>, DecodeError> {
    let mut state = serde_avro_fast::de::DeserializerState::from_slice(datum, schema);
    let wire = Wire::deserialize(state.deserializer()).map_err(undecodable)?;
    let mut reader = state.into_reader();
    match reader.fill_buf() {
        Ok([]) => Ok(wire),
        rest => Err(undecodable(format!(
            "{} bytes after the end of the datum",
            rest.map_or(0, <[u8]>::len)
        ))),
    }
}

fn undecodable(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::Undecodable(beginning(&error.to_string()))
}

/// What was found may be as large as a record: as much as a person can read is enough.
fn beginning(text: &str) -> String {
    text.chars().take(300).collect()
}

fn unknown_fingerprint(fingerprint: &[u8]) -> DecodeError {
    let fold = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
    let fingerprint = fingerprint.iter().rfold(0, fold);
    DecodeError::UnknownSchema(format!("fingerprint {fingerprint:016x}"))
}
