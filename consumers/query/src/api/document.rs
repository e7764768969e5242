//! The reports' part of the document, made from their catalogue.

use serde_json::{Value as Json, json};
use utoipa::IntoParams as _;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::path::Paths;

use millrace_rules::account::ACCOUNT_PATTERN;
use millrace_rules::{Currency, ParkReason, Reason};

use crate::api::params::{LIMIT_DEFAULT, Waiting};
use crate::api::reports::ROWS_MAX;
use crate::reports::filter::Value;
use crate::reports::{Column, Kind, REPORTS, Report};

/// Adds a path for every report.
pub fn add_reports(document: &mut Document) {
    let paths: serde_json::Map<_, _> = REPORTS
        .iter()
        .map(|report| (format!("/v1/reports/{}", report.name), path(report)))
        .collect();
    let paths: Paths =
        serde_json::from_value(Json::Object(paths)).expect("the catalogue makes valid paths");
    document.paths.paths.extend(paths.paths);
}

fn path(report: &Report) -> Json {
    let mut parameters = vec![
        parameter(
            "limit",
            "How many rows",
            &json!({
            "type": "integer", "minimum": 1, "maximum": ROWS_MAX, "default": LIMIT_DEFAULT}),
        ),
        parameter(
            "cursor",
            "`next` of the answer before",
            &json!({"type": "string", "pattern": "^([0-9a-fA-F]{2})+$"}),
        ),
        parameter(
            "format",
            "How rows are shown",
            &json!({
            "type": "string", "enum": ["json", "csv", "ndjson"], "default": "json"}),
        ),
    ];
    let waiting = Waiting::into_params(|| None);
    parameters.extend(
        waiting
            .iter()
            .map(|parameter| serde_json::to_value(parameter).expect("a parameter is JSON")),
    );
    parameters.extend(
        report
            .filters
            .iter()
            .map(|filter| parameter(filter.name, "Only rows that fit", &value(filter.value))),
    );
    let rows = json!({"type": "array", "items": row(report)});
    let header = json!({"schema": {"type": "string"}});
    json!({"get": {
        "tags": ["reports"],
        "operationId": format!("report_{}", report.name),
        "summary": report.about,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "A page of rows. CSV and NDJSON give the next cursor as header millrace-next-cursor.",
                "headers": {"millrace-as-of": header, "millrace-staleness-ms": header},
                "content": {
                    "application/json": {"schema": {
                        "type": "object", "required": ["rows", "next"],
                        "properties": {"rows": rows, "next": {"type": ["string", "null"]}}}},
                    "text/csv": {"schema": {"type": "string"}},
                    "application/x-ndjson": {"schema": {"type": "string"}},
                },
            },
            "400": problem("A wrong parameter"),
            "503": problem("The database does not answer"),
            "504": problem("`at_least` was not reached in time"),
        },
    }})
}

fn parameter(name: &str, description: &str, schema: &Json) -> Json {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
}

fn problem(description: &str) -> Json {
    json!({
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

fn row(report: &Report) -> Json {
    let properties: serde_json::Map<_, _> = report
        .columns
        .iter()
        .map(|column| (column.name.to_owned(), cell(column)))
        .collect();
    let required: Vec<_> = report.columns.iter().map(|column| column.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn cell(column: &Column) -> Json {
    let (kind, format) = match column.kind {
        Kind::Text => ("string", None),
        Kind::Uuid => ("string", Some("uuid")),
        Kind::Integer => ("integer", None),
        Kind::Seconds => ("number", None),
        Kind::Time => ("string", Some("date-time")),
        Kind::Date => ("string", Some("date")),
        Kind::Object => ("object", None),
        Kind::Bytes => ("string", Some("byte")),
        Kind::Boolean => ("boolean", None),
    };
    let mut schema = if column.nullable {
        json!({"type": [kind, "null"]})
    } else {
        json!({"type": kind})
    };
    if let Some(format) = format {
        schema["format"] = format.into();
    }
    schema
}

fn value(value: Value) -> Json {
    match value {
        Value::Account => json!({"type": "string", "pattern": ACCOUNT_PATTERN}),
        Value::Currency => {
            let codes: Vec<_> = Currency::all().map(Currency::code).collect();
            json!({"type": "string", "enum": codes})
        }
        Value::Text(max) => {
            json!({"type": "string", "maxLength": max, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
        }
        Value::Partition => json!({"type": "integer", "minimum": 0, "maximum": i32::MAX}),
        Value::Date => json!({"type": "string", "format": "date"}),
        Value::Time => json!({"type": "string", "format": "date-time"}),
        Value::Reason => json!({"type": "string", "enum": Reason::ALL.map(Reason::as_str)}),
        Value::ParkReason => {
            json!({"type": "string", "enum": ParkReason::ALL.map(ParkReason::as_str)})
        }
        Value::Boolean => json!({"type": "boolean"}),
    }
}
