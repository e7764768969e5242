//! Markdown tables of kept runs. Runs of the same case under the same conditions share a row, which
//! shows medians.

use std::fmt::Write as _;

use millrace_benches::spread::Spread;

use crate::case::Parameters;
use crate::conditions::Conditions;
use crate::record::{Figures, Kept};
use crate::rows::{CPU, FoldRow, FoldValue, PER_SECOND, Row, Value, float, folds, rows};

const BYTES_PER_MIB: f64 = 1024.0 * 1024.0;

/// A column: its header, and what stands in it for a row.
struct Column {
    header: &'static str,
    cell: fn(&Row<'_>) -> String,
}

type Parameter = (&'static str, fn(&Parameters) -> String);

/// The parameters: those that are the same in all rows are said once, the others are columns.
const PARAMETERS: [Parameter; 12] = [
    ("transactions", |p| thousands(p.count)),
    ("skew", |p| p.skew.to_string()),
    ("partitions", |p| p.partitions.to_string()),
    ("accounts", |p| thousands(p.accounts)),
    ("limit", |p| {
        p.limit.map_or("none".into(), |limit| limit.to_string())
    }),
    ("opening deposits", |p| yes(p.is_funded())),
    ("ids", |p| p.ids.to_string()),
    ("background models", |p| yes(p.project)),
    ("drained before", |p| thousands(p.existing_rows)),
    ("external share", |p| p.external_share.to_string()),
    ("replicas × lanes", |p| {
        format!("{} × {}", p.replicas, p.lanes)
    }),
    ("seed", |p| p.seed.to_string()),
];

const FIGURES: [Column; 14] = [
    Column {
        header: "rows before",
        cell: |row| row.shown(0, |f| float(f.rows_before)),
    },
    Column {
        header: "runs",
        cell: |row| row.runs.len().to_string(),
    },
    Column {
        header: "tx/s (min–max)",
        cell: |row| {
            row.spread(|f| Some(f.tx_per_s))
                .map_or(String::new(), range)
        },
    },
    Column {
        header: "tx/s with models",
        cell: |row| row.shown(0, |f| Some(f.models.as_ref()?.tx_per_s)),
    },
    Column {
        header: "ledger µs",
        cell: |row| row.shown(1, |f| Some(f.ledger_us)),
    },
    Column {
        header: "Postgres µs",
        cell: |row| row.shown(1, |f| f.postgres_us),
    },
    Column {
        header: "of it project's",
        cell: |row| row.shown(1, |f| f.models.as_ref()?.postgres_project_us),
    },
    Column {
        header: "project µs",
        cell: |row| row.shown(1, |f| Some(f.models.as_ref()?.project_us)),
    },
    Column {
        header: "Kafka µs",
        cell: |row| row.shown(1, |f| f.kafka_us),
    },
    Column {
        header: "checkpoint µs",
        cell: |row| row.shown(1, |f| f.checkpoint_us),
    },
    Column {
        header: "WAL bytes",
        cell: |row| row.shown(0, |f| Some(f.wal_bytes)),
    },
    Column {
        header: "ledger peak MiB",
        cell: |row| row.shown(0, |f| Some(f.ledger_peak_mib)),
    },
    Column {
        header: "rejected %",
        cell: |row| row.shown(2, rejected_percent),
    },
    Column {
        header: "others' CPU %",
        cell: |row| row.shown(0, |f| f.others_percent),
    },
];

/// What one case adds to the one that it is compared with.
const DIFFERENCES: [Column; 6] = [
    Column {
        header: "tx/s",
        cell: |row| row.shown(0, |f| Some(f.tx_per_s)),
    },
    Column {
        header: "ledger µs",
        cell: |row| row.shown(1, |f| Some(f.ledger_us)),
    },
    Column {
        header: "Postgres µs",
        cell: |row| row.shown(1, |f| f.postgres_us),
    },
    Column {
        header: "project µs",
        cell: |row| row.shown(1, |f| Some(f.models.as_ref().map_or(0.0, |m| m.project_us))),
    },
    Column {
        header: "Kafka µs",
        cell: |row| row.shown(1, |f| f.kafka_us),
    },
    Column {
        header: "WAL bytes",
        cell: |row| row.shown(0, |f| Some(f.wal_bytes)),
    },
];

/// Conditions, then a table of all cases, what each adds to the one it is compared with, and what the read
/// models' folds came to.
pub fn markdown(kept: &[Kept]) -> String {
    let mut text = String::new();
    let mut all: Vec<&Conditions> = Vec::new();
    for conditions in kept.iter().map(Kept::conditions) {
        if !all.contains(&conditions) {
            all.push(conditions);
        }
    }
    for conditions in all {
        let of: Vec<_> = kept
            .iter()
            .filter(|kept| kept.conditions() == conditions)
            .collect();
        write_conditions(&mut text, conditions);
        let rows = rows(&of);
        if !rows.is_empty() {
            write_table(&mut text, &rows);
            write_differences(&mut text, &rows);
        }
        write_folds(&mut text, &folds(&of));
    }
    text
}

/// The middle, and between which ends it lies.
fn range(spread: Spread) -> String {
    let Spread {
        least,
        median,
        most,
    } = spread;
    format!("**{median:.0}** ({least:.0}–{most:.0})")
}

fn write_conditions(text: &mut String, conditions: &Conditions) {
    let Conditions {
        cores,
        cpu,
        memory_mib,
        kernel,
        kafka,
        brokers,
        librdkafka,
        millrace,
        commit,
        postgres,
    } = conditions;
    let settings: Vec<_> = postgres
        .iter()
        .filter(|(name, _)| *name != "server_version")
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let version = postgres.get("server_version").map_or("", String::as_str);
    let kafka = kafka.as_deref().unwrap_or("(version unknown)");
    let commit = commit.as_deref().unwrap_or("unknown");
    let _ = writeln!(
        text,
        "{cores} cores ({cpu}), {:.1} GiB, Linux {kernel}; Kafka {kafka}, {brokers} broker(s), librdkafka \
         {librdkafka}; Postgres {version} ({}); {millrace}, commit {commit}. Servers, ledger and this \
         program share the cores.\n",
        float(*memory_mib).unwrap_or(0.0) / 1024.0,
        settings.join(", "),
    );
}

fn write_table(text: &mut String, rows: &[Row<'_>]) {
    let of = |row: &Row<'_>, value: fn(&Parameters) -> String| value(&row.first.case.parameters);
    let (same, differing): (Vec<_>, Vec<_>) = PARAMETERS.iter().partition(|(_, value)| {
        let all = rows.iter().map(|row| of(row, *value));
        all.collect::<std::collections::HashSet<_>>().len() <= 1
    });
    if let Some(first) = rows.first() {
        let same: Vec<_> = same
            .iter()
            .map(|(name, value)| format!("{name} {}", of(first, *value)))
            .collect();
        let _ = writeln!(text, "In all runs: {}.\n", same.join(", "));
    }
    // A column in which no row has anything says nothing.
    let figures: Vec<_> = FIGURES
        .iter()
        .filter(|column| rows.iter().any(|row| !(column.cell)(row).is_empty()))
        .collect();
    let mut header: Vec<_> = differing.iter().map(|(name, _)| *name).collect();
    header.extend(figures.iter().map(|column| column.header));
    header.push("checks");
    write_line(text, header.iter().copied());
    write_line(text, header.iter().map(|_| "---"));
    for row in rows {
        let mut cells: Vec<_> = differing.iter().map(|(_, value)| of(row, *value)).collect();
        cells.extend(figures.iter().map(|column| (column.cell)(row)));
        cells.push(if row.are_right { "hold" } else { "**FAIL**" }.into());
        write_line(text, cells.iter().map(String::as_str));
    }
    text.push('\n');
}

fn write_differences(text: &mut String, rows: &[Row<'_>]) {
    let named = |name: &str| rows.iter().find(|row| row.first.case.name == name);
    let compared: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row, named(row.first.case.compared_with.as_deref()?)?)))
        .collect();
    if compared.is_empty() {
        return;
    }
    let mut header = vec!["case", "compared with"];
    header.extend(DIFFERENCES.iter().map(|column| column.header));
    header.extend(["tx/s %", "CPU %"]);
    write_line(text, header.iter().copied());
    write_line(text, header.iter().map(|_| "---"));
    for (row, other) in &compared {
        let mut cells = vec![row.first.case.name.clone(), other.first.case.name.clone()];
        cells.extend(DIFFERENCES.iter().map(|c| difference(c, row, other)));
        for value in [PER_SECOND, CPU] {
            let percent = percent(value, row, other);
            cells.push(percent.map_or(String::new(), |percent| format!("{percent:+.0}")));
        }
        write_line(text, cells.iter().map(String::as_str));
    }
    let ends = |value| {
        let all = compared.iter();
        Spread::of(all.filter_map(|(row, other)| percent(value, row, other)))
    };
    if let (Some(per_second), Some(cpu)) = (ends(PER_SECOND), ends(CPU)) {
        let _ = writeln!(
            text,
            "\nBeside what they are compared with: CPU of ledger, Postgres and Kafka together {:+.0} % to {:+.0} %, \
             tx/s {:+.0} % to {:+.0} %.",
            cpu.least, cpu.most, per_second.least, per_second.most
        );
    }
    text.push('\n');
}

/// How much more or less than the other, in percent.
fn percent(value: Value, row: &Row<'_>, other: &Row<'_>) -> Option<f64> {
    let (value, other) = (row.spread(value)?.median, other.spread(value)?.median);
    Some(100.0 * (value / other - 1.0))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn write_folds(text: &mut String, rows: &[FoldRow<'_>]) {
    if rows.is_empty() {
        return;
    }
    let mut header = vec!["read models", "workers", "ledger", "rows", "runs"];
    header.extend([
        "rows/s (min–max)",
        "project's connections µs",
        "Postgres µs",
    ]);
    header.extend(["project µs", "WAL bytes", "slices per row", "MiB", "checks"]);
    write_line(text, header.iter().copied());
    write_line(text, header.iter().map(|_| "---"));
    for row in rows {
        let shown = |decimals: usize, value: FoldValue| {
            row.spread(value)
                .map_or(String::new(), |s| format!("{:.decimals$}", s.median))
        };
        let runs = row.runs.len().to_string();
        let cells = [
            row.models(),
            row.runs[0].workers.to_string(),
            row.first.case.name.clone(),
            thousands(row.first.rows.unsigned_abs()),
            runs,
            row.spread(|f| Some(f.rows_per_s))
                .map_or(String::new(), range),
            shown(1, |f| f.postgres_project_us),
            shown(1, |f| f.postgres_us),
            shown(2, |f| Some(f.project_us)),
            shown(0, |f| Some(f.wal_bytes)),
            row.slices_per_row()
                .map_or(String::new(), |n| format!("{n:.2}")),
            shown(0, |f| Some(f.size_bytes as f64 / BYTES_PER_MIB)),
            if row.are_right { "hold" } else { "**FAIL**" }.to_owned(),
        ];
        write_line(text, cells.iter().map(String::as_str));
    }
    text.push('\n');
}

/// The difference of two cells as they are shown, so that the table adds up.
fn difference(column: &Column, row: &Row<'_>, other: &Row<'_>) -> String {
    let (text, other) = ((column.cell)(row), (column.cell)(other));
    let decimals = text
        .split_once('.')
        .map_or(0, |(_, decimals)| decimals.len());
    match (text.parse::<f64>(), other.parse::<f64>()) {
        (Ok(value), Ok(other)) => format!("{:+.decimals$}", value - other),
        _ => String::new(),
    }
}

fn write_line<'c>(text: &mut String, cells: impl Iterator<Item = &'c str>) {
    text.push('|');
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
}

fn rejected_percent(figures: &Figures) -> Option<f64> {
    let verdicts = figures.verdicts;
    let (rejected, records) = (float(verdicts.rejected)?, float(verdicts.records())?);
    (rejected > 0.0).then(|| 100.0 * rejected / records)
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
