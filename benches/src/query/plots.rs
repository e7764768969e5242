//! Charts of kept windows: each request alone and beside ingest.

use std::path::{Path, PathBuf};

use millrace_benches::plot::{self, Bars, Measured};
use millrace_benches::results;
use millrace_benches::spread::Spread;

use crate::endpoint::Endpoint;
use crate::record::{Figures, Record};

type Value = fn(&Figures) -> f64;

/// The end of a picture's name, its title, what its axis says, and what it is of.
const CHARTS: [(&str, &str, &str, Value); 2] = [
    (
        "rate",
        "Reads without and beside ingest",
        "requests per second",
        |f| f.requests_per_s,
    ),
    (
        "p99",
        "How long reads take, without and beside ingest",
        "p99, ms",
        |f| f.latency.p99,
    ),
];

/// Draws what there is to draw of a file of results, and names the files.
pub fn draw(directory: &Path, file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let records: Vec<Record> = results::read(file)?;
    let picture = |(suffix, title, unit, value)| {
        Ok((suffix, plot::bars(&chart(&records, title, unit, value))?))
    };
    let pictures = CHARTS.into_iter().map(picture);
    plot::save(directory, file, pictures.collect::<anyhow::Result<_>>()?)
}

fn chart(records: &[Record], title: &str, unit: &str, value: Value) -> Bars {
    let endpoints: Vec<_> = Endpoint::ALL
        .into_iter()
        .filter(|endpoint| records.iter().any(|r| r.endpoint == Some(*endpoint)))
        .collect();
    let measured = |name: &str, has_ingest: bool| {
        let of = |endpoint: &Endpoint| {
            let windows = records.iter().filter(|r| {
                r.endpoint == Some(*endpoint) && r.figures.ingest_per_s.is_some() == has_ingest
            });
            Spread::of(windows.map(|r| value(&r.figures)))
        };
        Measured {
            name: name.to_owned(),
            values: endpoints.iter().map(of).collect(),
        }
    };
    Bars {
        title: title.to_owned(),
        unit: unit.to_owned(),
        cases: endpoints.iter().map(ToString::to_string).collect(),
        measured: vec![
            measured("without ingest", false),
            measured("beside ingest", true),
        ],
        sums: None,
        wanted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn each_request_has_a_bar_alone_and_one_beside_ingest() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("query.jsonl");
        for record in [
            record(None, Some(90_000.0)),
            record(Some(Endpoint::Account), None),
            record(Some(Endpoint::Account), Some(60_000.0)),
        ] {
            results::append(&file, &record).unwrap();
        }
        let drawn = draw(directory.path(), &file).unwrap();
        let named = |end| directory.path().join(format!("query-{end}.svg"));
        assert_eq!(drawn, [named("rate"), named("p99")]);
        let svg = std::fs::read_to_string(&drawn[0]).unwrap();
        for text in [
            "/v1/accounts/{a}",
            "without ingest",
            "beside ingest",
            "2000",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }
}
