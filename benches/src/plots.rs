//! Charts of kept runs: cases side by side, what the cost depends on, and read models.

use std::path::{Path, PathBuf};

use millrace_benches::plot::{self, Bars, Curve, Lines, Measured};
use millrace_benches::results;
use serde::Deserialize;

use crate::case::Parameters;
use crate::peers::{self, PeerRun};
use crate::record::Kept;
use crate::report::thousands;
use crate::rows::{CPU, FoldRow, FoldValue, PER_SECOND, Row, Value, folds, rows};

/// Rows of the ledger per second that a read model is to be folded at.
const WANTED_ROWS_PER_S: f64 = 200_000.0;

/// The parts of what a transaction costs.
const PARTS: [(&str, Value); 4] = [
    ("ledger", |f| Some(f.ledger_us)),
    ("Postgres", |f| f.postgres_us),
    ("Kafka", |f| f.kafka_us),
    ("project", |f| Some(f.models.as_ref()?.project_us)),
];

const FOLD_CPU: FoldValue = |fold| Some(fold.postgres_us? + fold.project_us);

/// What is drawn of a dependence.
const CURVES: [(&str, Value); 3] = [
    ("all together", CPU),
    ("Postgres", |f| f.postgres_us),
    ("ledger", |f| Some(f.ledger_us)),
];

/// Something that a suite varies: its name, its value in a case, and how to make it the same in all cases.
struct Dimension {
    name: &'static str,
    value: fn(&Parameters) -> u64,
    unify: fn(&mut Parameters),
}

const DIMENSIONS: [Dimension; 4] = [
    Dimension {
        name: "partitions",
        value: |p| p.partitions.into(),
        unify: |p| p.partitions = 1,
    },
    Dimension {
        name: "replicas",
        value: |p| p.replicas.into(),
        unify: |p| p.replicas = 1,
    },
    Dimension {
        name: "accounts",
        value: |p| p.accounts,
        unify: |p| p.accounts = 1,
    },
    Dimension {
        name: "rows before",
        value: |p| p.existing_rows,
        // The steps of a ledger that grows have a seed each, and the first measures fewer.
        unify: |p| (p.existing_rows, p.seed, p.count) = (0, 1, 0),
    },
];

/// A dependence is drawn from so many values of what is varied.
const PLACES_MIN: usize = 3;

/// A line of a file that can be drawn.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Peer(PeerRun),
    Kept(Kept),
}

/// Draws what there is to draw of a file of results, and names the files.
pub fn draw(directory: &Path, file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut kept, mut peers) = (Vec::new(), Vec::new());
    for line in results::read(file)? {
        match line {
            Line::Peer(run) => peers.push(run),
            Line::Kept(run) => kept.push(run),
        }
    }
    let pictures = if peers.is_empty() {
        pictures(&kept)?
    } else {
        peers::pictures(&peers)?
    };
    plot::save(directory, file, pictures)
}

/// Pictures by the end of their names.
fn pictures(kept: &[Kept]) -> anyhow::Result<Vec<(&'static str, String)>> {
    let kept: Vec<_> = kept.iter().collect();
    let (rows, folds) = (rows(&kept), folds(&kept));
    let mut pictures = Vec::new();
    if !rows.is_empty() {
        pictures.push(("throughput", plot::bars(&throughput(&rows))?));
        pictures.push(("cpu", plot::bars(&cpu(&rows))?));
    }
    let panels = dependences(&rows);
    if !panels.is_empty() {
        pictures.push(("flat", plot::lines("CPU per transaction", &panels)?));
    }
    if !folds.is_empty() {
        pictures.push(("rows", plot::bars(&fold_rates(&folds))?));
        pictures.push(("fold-cpu", plot::bars(&fold_cpu(&folds))?));
    }
    Ok(pictures)
}

fn throughput(rows: &[Row<'_>]) -> Bars {
    Bars {
        title: "Throughput".to_owned(),
        unit: "transactions per second".to_owned(),
        cases: cases(rows),
        measured: vec![measured("tx/s", rows, PER_SECOND)],
        sums: None,
        wanted: None,
    }
}

fn cpu(rows: &[Row<'_>]) -> Bars {
    let parts = PARTS.iter();
    let parts = parts.map(|(name, value)| measured(name, rows, *value));
    Bars {
        title: "CPU per transaction".to_owned(),
        unit: "µs of CPU, user and system".to_owned(),
        cases: cases(rows),
        // One that no case has is not part of it.
        measured: parts
            .filter(|part| part.values.iter().any(Option::is_some))
            .collect(),
        sums: Some(rows.iter().map(|row| row.spread(CPU)).collect()),
        wanted: None,
    }
}

fn cases(rows: &[Row<'_>]) -> Vec<String> {
    rows.iter().map(|row| row.first.case.name.clone()).collect()
}

fn measured(name: &str, rows: &[Row<'_>], value: Value) -> Measured {
    Measured {
        name: name.to_owned(),
        values: rows.iter().map(|row| row.spread(value)).collect(),
    }
}

/// A panel for each set of cases that differ in one dimension only.
fn dependences(rows: &[Row<'_>]) -> Vec<Lines> {
    let mut panels = Vec::new();
    for dimension in &DIMENSIONS {
        let mut groups: Vec<(Parameters, Vec<&Row<'_>>)> = Vec::new();
        for row in rows {
            let mut unified = row.first.case.parameters.clone();
            (dimension.unify)(&mut unified);
            match groups.iter_mut().find(|(of, _)| *of == unified) {
                Some((_, group)) => group.push(row),
                None => groups.push((unified, vec![row])),
            }
        }
        let drawn = groups
            .into_iter()
            .filter_map(|(of, group)| panel(dimension, &of, group));
        panels.extend(drawn);
    }
    panels
}

fn panel(dimension: &Dimension, of: &Parameters, mut group: Vec<&Row<'_>>) -> Option<Lines> {
    let value = |row: &&Row<'_>| (dimension.value)(&row.first.case.parameters);
    group.sort_by_key(value);
    group.dedup_by_key(|row| value(row));
    if group.len() < PLACES_MIN {
        return None;
    }
    let curves = CURVES.iter().map(|(name, value)| Curve {
        name: (*name).to_owned(),
        values: group.iter().map(|row| row.spread(*value)).collect(),
    });
    let places = group.iter().map(|row| thousands(value(row)));
    let limits = if of.limit.is_some() {
        ", limits on"
    } else {
        ""
    };
    Some(Lines {
        x: format!("{} ({} ids{limits})", dimension.name, of.ids),
        y: "µs of CPU".to_owned(),
        places: places.collect(),
        curves: curves.collect(),
    })
}

fn fold_rates(rows: &[FoldRow<'_>]) -> Bars {
    Bars {
        title: "Read models, folded from nothing".to_owned(),
        unit: "rows of the ledger per second; the line is what was wanted".to_owned(),
        cases: fold_cases(rows),
        measured: vec![fold_measured("rows/s", rows, |f| Some(f.rows_per_s))],
        sums: None,
        wanted: Some(WANTED_ROWS_PER_S),
    }
}

fn fold_cpu(rows: &[FoldRow<'_>]) -> Bars {
    Bars {
        title: "CPU of folding read models".to_owned(),
        unit: "µs of CPU per row of the ledger".to_owned(),
        cases: fold_cases(rows),
        measured: vec![
            fold_measured("Postgres", rows, |f| f.postgres_us),
            fold_measured("project", rows, |f| Some(f.project_us)),
        ],
        sums: Some(rows.iter().map(|row| row.spread(FOLD_CPU)).collect()),
        wanted: None,
    }
}

fn fold_cases(rows: &[FoldRow<'_>]) -> Vec<String> {
    let name = |row: &FoldRow<'_>| {
        let workers = row.runs[0].workers;
        let plural = if workers == 1 { "" } else { "s" };
        format!("{}, {workers} worker{plural}", row.models())
    };
    rows.iter().map(name).collect()
}

fn fold_measured(name: &str, rows: &[FoldRow<'_>], value: FoldValue) -> Measured {
    Measured {
        name: name.to_owned(),
        values: rows.iter().map(|row| row.spread(value)).collect(),
    }
}
