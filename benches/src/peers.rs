//! Charts of peers side by side, from the runs that `peers/run.sh` keeps.

use millrace_benches::plot::{self, Bars, Measured};
use millrace_benches::spread::Spread;
use serde::Deserialize;

/// What a chart needs of a kept run.
#[derive(Debug, Deserialize)]
pub struct PeerRun {
    peer: String,
    skew: String,
    figures: Figures,
}

/// `_us` is CPU in microseconds per event.
#[derive(Debug, Deserialize)]
struct Figures {
    events_per_s: f64,
    peer_us: f64,
    postgres_us: f64,
    kafka_us: f64,
}

type Value = fn(&Figures) -> f64;

/// The parts of what an event costs.
const PARTS: [(&str, Value); 3] = [
    ("peer", |f| f.peer_us),
    ("Postgres", |f| f.postgres_us),
    ("Kafka", |f| f.kafka_us),
];

/// Pictures by the end of their names.
pub fn pictures(runs: &[PeerRun]) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut cases: Vec<(String, Vec<&Figures>)> = Vec::new();
    for run in runs {
        let name = format!("{}, {}", run.peer, run.skew);
        match cases.iter_mut().find(|(of, _)| *of == name) {
            Some((_, figures)) => figures.push(&run.figures),
            None => cases.push((name, vec![&run.figures])),
        }
    }
    let spread = |value: Value| -> Vec<Option<Spread>> {
        let of = |(_, figures): &(String, Vec<&Figures>)| {
            Spread::of(figures.iter().map(|figures| value(figures)))
        };
        cases.iter().map(of).collect()
    };
    let measured = |(name, value): (&str, Value)| Measured {
        name: name.to_owned(),
        values: spread(value),
    };
    let chart = |title: &str, unit: &str, measured, sums| Bars {
        title: title.to_owned(),
        unit: unit.to_owned(),
        cases: cases.iter().map(|(name, _)| name.clone()).collect(),
        measured,
        sums,
        wanted: None,
    };
    let rates = chart(
        "Millrace and its peers",
        "events per second; copy and consumer are limits, not peers",
        vec![measured(("events/s", |f| f.events_per_s))],
        None,
    );
    let costs = chart(
        "CPU per event of Millrace and its peers",
        "µs of CPU, user and system",
        PARTS.into_iter().map(measured).collect(),
        Some(spread(|f| f.peer_us + f.postgres_us + f.kafka_us)),
    );
    Ok(vec![
        ("throughput", plot::bars(&rates)?),
        ("cpu", plot::bars(&costs)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_peer_with_a_skew_are_one_bar() {
        let run = |peer: &str, events_per_s: u32| {
            serde_json::from_value(serde_json::json!({
                "peer": peer, "skew": "uniform", "settings": {},
                "figures": {"events_per_s": events_per_s, "peer_us": 3.0, "postgres_us": 12.5, "kafka_us": 1.0},
            }))
            .unwrap()
        };
        let runs = [
            run("millrace", 90_000),
            run("pgledger", 11_000),
            run("millrace", 110_000),
        ];
        let pictures = pictures(&runs).unwrap();
        let [("throughput", rates), ("cpu", costs)] = &pictures[..] else {
            panic!("{} pictures", pictures.len());
        };
        assert_eq!(rates.matches("millrace, uniform").count(), 1, "{rates}");
        assert!(costs.contains("16.5"), "{costs}");
    }
}
