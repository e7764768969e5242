//! A Markdown table of kept runs. Runs of the same case under the same conditions share a row, for which
//! their latencies are added up.

use std::fmt::Write as _;

use millrace_benches::conditions::Conditions;
use millrace_benches::latency::Latency;

use crate::record::{Figures, Record};

/// Who spends CPU, in the order of the columns.
const SPENDERS: [&str; 9] = [
    "gateway", "ledger", "project", "query", "dev", "postgres", "kafka", "client", "others",
];

/// All runs of one case.
pub struct Row<'a> {
    first: &'a Record,
    runs: Vec<&'a Record>,
}

/// Conditions, then a table of the cases under them.
pub fn markdown(records: &[Record]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut conditions: Vec<&Conditions> = Vec::new();
    for record in records {
        if !conditions.contains(&&record.conditions) {
            conditions.push(&record.conditions);
        }
    }
    for conditions in conditions {
        let of = records.iter().filter(|r| r.conditions == *conditions);
        let rows = rows(of);
        let spenders: Vec<_> = SPENDERS
            .into_iter()
            .filter(|name| rows.iter().any(|row| row.cpu(name).is_some()))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\n\n{}", conditions.sentence(), head(&spenders));
        for row in rows {
            text.push_str(&row.line(&spenders)?);
        }
        text.push('\n');
    }
    Ok(text)
}

/// Runs of the same case together, in the order of their first.
pub fn rows<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for record in records {
        let same = rows.iter_mut().find(|row| row.is_of(record));
        match same {
            Some(row) => row.runs.push(record),
            None => rows.push(Row {
                first: record,
                runs: vec![record],
            }),
        }
    }
    rows
}

fn head(spenders: &[&str]) -> String {
    let mut columns = vec![
        "servers".to_owned(),
        "offered".into(),
        "partitions, lanes".into(),
        "runs × s".into(),
        "accepted tx/s".into(),
        "due to accepted, ms: p50 / p99 / p99.9 / max".into(),
        "due to visible".into(),
        "accepted to visible".into(),
        "visible samples".into(),
        "refused, turned away, failed, not sent".into(),
        "samples not seen".into(),
    ];
    let cpu = spenders.iter().map(|name| format!("{name} µs"));
    columns.extend(cpu);
    columns.push("checks".into());
    format!("{}|{}", cells(&columns), " --- |".repeat(columns.len()))
}

fn cells(columns: &[String]) -> String {
    format!("| {} |\n", columns.join(" | "))
}

impl Row<'_> {
    fn is_of(&self, record: &Record) -> bool {
        let key = |r: &Record| (r.case, r.servers.clone(), r.settings.clone());
        key(self.first) == key(record)
    }

    fn line(&self, spenders: &[&str]) -> anyhow::Result<String> {
        let Record {
            servers,
            case,
            settings,
            ..
        } = self.first;
        let count = |of: fn(&Figures) -> u64| self.figures().map(of).sum::<u64>();
        let visible = self.sum(|figures| &figures.visible)?;
        let mut columns = vec![
            servers.clone(),
            case.to_string(),
            format!("{}, {}", settings.partitions, settings.lanes),
            format!("{} × {}", self.runs.len(), settings.seconds),
            format!(
                "{:.0}",
                self.mean(|figures| Some(figures.accepted_per_s))
                    .unwrap_or(0.0)
            ),
            self.sum(|figures| &figures.accept)?.cells(),
            format!("**{}**", visible.cells()),
            self.sum(|figures| &figures.visible_after)?.cells(),
            visible.samples.to_string(),
            count(|figures| figures.counts.lost()).to_string(),
            count(|figures| figures.counts.not_found + figures.counts.not_looked_for).to_string(),
        ];
        for name in spenders {
            columns.push(
                self.cpu(name)
                    .map_or(String::new(), |us| format!("{us:.0}")),
            );
        }
        let are_right = self.runs.iter().all(|record| record.failures.is_empty());
        columns.push(if are_right { "hold" } else { "**FAILED**" }.into());
        Ok(cells(&columns))
    }

    fn figures(&self) -> impl Iterator<Item = &Figures> {
        self.runs.iter().map(|record| &record.figures)
    }

    /// What was offered, and to how many partitions and lanes.
    pub fn name(&self) -> String {
        let Record { case, settings, .. } = self.first;
        let (partitions, lanes) = (settings.partitions, settings.lanes);
        format!("{case} ({partitions} partitions, {lanes} lanes)")
    }

    /// A latency over all runs.
    pub fn sum(&self, latency: fn(&Figures) -> &Latency) -> anyhow::Result<Latency> {
        Latency::sum(self.figures().map(latency))
    }

    fn cpu(&self, name: &str) -> Option<f64> {
        self.mean(|figures| figures.cpu_us.get(name).copied())
    }

    /// None where no run has the figure.
    fn mean(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let all: Vec<_> = self.figures().filter_map(figure).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
        let count = all.len() as f64;
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn runs_of_a_case_share_a_row() {
        let mut failed = record(5_000, 30);
        failed.failures.push("verify".into());
        let text = markdown(&[record(1_000, 14), failed, record(1_000, 20)]).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 4, "{text}");
        let columns = |line: &str| line.matches(" |").count();
        assert!(
            lines.iter().all(|line| columns(line) == columns(lines[0])),
            "{text}"
        );
        assert!(lines[2].starts_with("| kafka | 1,000/s, single posts | 4, 5 | 2 × 30 | 1000 |"));
        assert!(lines[2].ends_with("| 2 | 0 | 0 | 12 | hold |"), "{text}");
        assert!(lines[3].ends_with("| 12 | **FAILED** |"), "{text}");
    }
}
