//! Markdown tables of kept windows: for each endpoint a row without ingest and one beside it.

use std::fmt::Write as _;

use millrace_benches::conditions::Conditions;

use crate::cli::Settings;
use crate::record::Record;

const HEAD: &str = "\
| request | ingest | requests/s | ms: p50 / p99 / p99.9 / max | requests | errors | query µs | Postgres µs | ingest tx/s | ledger µs/tx | rows before |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// For each set of conditions and settings a table.
pub fn markdown(records: &[Record]) -> String {
    let mut text = String::new();
    let mut groups: Vec<(&Conditions, &Settings)> = Vec::new();
    for record in records {
        let group = (&record.conditions, &record.settings);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    for (conditions, settings) in groups {
        let Settings {
            preload,
            count,
            connections,
            accounts,
            partitions,
            lanes,
            seconds: _,
        } = settings;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}\n\n{connections} readers, {preload} transactions before over 30 days, {count} in each ingest, \
             {accounts} accounts, {partitions} partitions, {lanes} lanes.\n\n{HEAD}",
            conditions.sentence()
        );
        let of_group = |r: &&Record| (&r.conditions, &r.settings) == (conditions, settings);
        for record in records.iter().filter(of_group) {
            text.push_str(&line(record));
        }
        text.push('\n');
    }
    text
}

fn line(record: &Record) -> String {
    let figures = &record.figures;
    let number =
        |n: Option<f64>, digits: usize| n.map_or(String::new(), |n| format!("{n:.digits$}"));
    let is_read = record.endpoint.is_some();
    let columns = [
        record
            .endpoint
            .map_or("nobody reads".into(), |e| format!("`{e}`")),
        if figures.ingest_per_s.is_some() {
            "yes"
        } else {
            "no"
        }
        .into(),
        number(is_read.then_some(figures.requests_per_s), 0),
        figures.latency.cells(),
        if is_read {
            figures.latency.samples.to_string()
        } else {
            String::new()
        },
        if is_read {
            figures.errors.to_string()
        } else {
            String::new()
        },
        number(figures.query_us, 0),
        number(figures.postgres_us, 0),
        number(figures.ingest_per_s, 0),
        number(figures.ledger_us, 1),
        figures.rows_before.to_string(),
    ];
    format!("| {} |\n", columns.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::record::tests::record;

    #[test]
    fn every_window_is_a_row() {
        let records = [
            record(Some(Endpoint::Account), None),
            record(Some(Endpoint::Account), Some(60_000.0)),
        ];
        let text = markdown(&records);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(
            lines[2],
            "| `/v1/accounts/{a}` | no | 2000 | 2.0 / 2.0 / 2.0 / 2.0 | 1 | 0 | 100 |  |  |  | 100 |"
        );
        assert!(lines[3].contains("| yes |") && lines[3].contains("| 60000 |"));
        let columns = |line: &str| line.matches(" |").count();
        assert!(
            lines
                .iter()
                .all(|line| columns(line) == columns(HEAD.lines().next().unwrap()))
        );
    }
}
