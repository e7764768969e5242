//! Charts of kept runs: latencies by percentile.

use std::path::{Path, PathBuf};

use millrace_benches::latency::Latency;
use millrace_benches::plot;
use millrace_benches::results;

use crate::case::Shape;
use crate::record::{Figures, Record};
use crate::report::{Row, rows};

/// What is drawn. Further out there are too few samples.
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9];

type Measured = fn(&Figures) -> &Latency;

/// What is measured: a panel each.
const PANELS: [(&str, Measured); 2] = [
    ("due to accepted, ms", |figures| &figures.accept),
    ("due to visible, ms", |figures| &figures.visible),
];

/// Draws what there is to draw of a file of results, and names the files.
pub fn draw(directory: &Path, file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let records: Vec<Record> = results::read(file)?;
    let (kafka, http): (Vec<&Record>, Vec<_>) = records
        .iter()
        .partition(|record| record.case.shape == Shape::Kafka);
    let mut pictures = Vec::new();
    for (suffix, title, records) in [
        ("http", "Latency over HTTP", http),
        ("kafka", "Latency straight through Kafka", kafka),
    ] {
        let rows = rows(records.into_iter());
        if !rows.is_empty() {
            pictures.push((suffix, picture(title, &rows)?));
        }
    }
    plot::save(directory, file, pictures)
}

fn picture(title: &str, rows: &[Row<'_>]) -> anyhow::Result<String> {
    let panel = |(y, latency): (&str, Measured)| {
        let load = |row: &Row<'_>| Ok((row.name(), row.sum(latency)?.at(&PERCENTILES)?));
        let loads: Vec<_> = rows.iter().map(load).collect::<anyhow::Result<_>>()?;
        Ok(plot::percentiles(y, &loads))
    };
    let panels: Vec<_> = PANELS
        .into_iter()
        .map(panel)
        .collect::<anyhow::Result<_>>()?;
    plot::lines(title, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn loads_over_http_have_a_picture_with_a_curve_each() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("runs.jsonl");
        for record in [record(1_000, 14), record(5_000, 30), record(1_000, 20)] {
            results::append(&file, &record).unwrap();
        }
        let drawn = draw(directory.path(), &file).unwrap();
        assert_eq!(drawn, [directory.path().join("runs-http.svg")]);
        let svg = std::fs::read_to_string(&drawn[0]).unwrap();
        for text in ["Latency over HTTP", "1,000/s, single posts", "p99.9"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
