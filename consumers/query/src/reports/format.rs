//! Rows as JSON, NDJSON and CSV.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::reports::catalog::{Column, Kind, Report};
use crate::reports::query::Row;

/// A row as a JSON object, members in the order of the columns.
#[derive(Debug)]
pub struct Object<'a>(pub &'a Report, pub &'a Row);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.1.len()))?;
        for (column, value) in self.0.columns.iter().zip(self.1) {
            map.serialize_entry(column.name, &Cell(column, value.as_deref()))?;
        }
        map.end()
    }
}

struct Cell<'a>(&'a Column, Option<&'a str>);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(text) = self.1 else {
            return serializer.serialize_none();
        };
        match self.0.kind {
            // Digits of any length, exactly as the database wrote them.
            Kind::Integer | Kind::Seconds | Kind::Object | Kind::Boolean => {
                let raw = RawValue::from_string(text.to_owned());
                raw.map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }
            _ => serializer.serialize_str(text),
        }
    }
}

/// One JSON object a line.
pub fn ndjson(report: &Report, rows: &[Row]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, &Object(report, row))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// RFC 4180 with a header line; null is an empty cell.
pub fn csv(report: &Report, rows: &[Row]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(report.columns.iter().map(|column| column.name))?;
    for row in rows {
        writer.write_record(row.iter().map(|value| value.as_deref().unwrap_or_default()))?;
    }
    writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::catalog::report;

    #[test]
    fn rows_keep_their_order_and_their_digits() {
        let report = report("balances").unwrap();
        let texts = [
            "a,\"b",
            "EUR",
            "2",
            "0",
            "123456789012345678901234567890",
            "-5",
            "1",
            "t",
        ];
        let mut row: Row = texts.iter().map(|text| Some((*text).to_owned())).collect();
        row[2] = None;
        let json = serde_json::to_string(&Object(report, &row)).unwrap();
        assert_eq!(
            json,
            r#"{"account":"a,\"b","currency":"EUR","exponent":null,"debits":0,"credits":123456789012345678901234567890,"balance":-5,"transactions":1,"last_occurred_at":"t"}"#
        );
        let csv = String::from_utf8(csv(report, &[row]).unwrap()).unwrap();
        assert_eq!(
            csv,
            "account,currency,exponent,debits,credits,balance,transactions,last_occurred_at\r\n\
             \"a,\"\"b\",EUR,,0,123456789012345678901234567890,-5,1,t\r\n"
        );
    }
}
