//! Runs of the same case under the same conditions, together.

use millrace_benches::spread::Spread;

use crate::record::{Figures, Fold, Kept, Rebuild, Record};

/// All drains of one case.
pub struct Row<'a> {
    pub first: &'a Record,
    pub runs: Vec<&'a Figures>,
    pub are_right: bool,
}

/// All folds of the same models by as many workers, over the same ledger.
pub struct FoldRow<'a> {
    pub first: &'a Rebuild,
    pub runs: Vec<&'a Fold>,
    pub are_right: bool,
}

/// What is looked at in every run; none where it was not measured.
pub type Value = fn(&Figures) -> Option<f64>;
pub type FoldValue = fn(&Fold) -> Option<f64>;

pub const PER_SECOND: Value = |figures| Some(figures.tx_per_s);

/// What a transaction costs all of them together.
pub const CPU: Value = |f| Some(f.ledger_us + project_us(f) + f.postgres_us? + f.kafka_us?);

/// Groups drains by their case.
pub fn rows<'a>(kept: &[&'a Kept]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for record in kept.iter().filter_map(|kept| kept.drain()) {
        let is_right = record.failures.is_empty();
        let same = rows.iter_mut().find(|row| row.first.case == record.case);
        if let Some(row) = same {
            row.runs.push(&record.figures);
            row.are_right &= is_right;
        } else {
            rows.push(Row {
                first: record,
                runs: vec![&record.figures],
                are_right: is_right,
            });
        }
    }
    rows
}

/// Groups folds by ledger, models and workers.
pub fn folds<'a>(kept: &[&'a Kept]) -> Vec<FoldRow<'a>> {
    let mut rows: Vec<FoldRow<'a>> = Vec::new();
    for rebuild in kept.iter().filter_map(|kept| kept.rebuild()) {
        let is_right = rebuild.failures.is_empty();
        for fold in &rebuild.folds {
            let same = rows.iter_mut().find(|row| {
                let other = row.runs[0];
                row.first.case == rebuild.case
                    && (&other.models, other.workers) == (&fold.models, fold.workers)
            });
            if let Some(row) = same {
                row.runs.push(fold);
                row.are_right &= is_right;
            } else {
                rows.push(FoldRow {
                    first: rebuild,
                    runs: vec![fold],
                    are_right: is_right,
                });
            }
        }
    }
    rows
}

impl Row<'_> {
    /// Over the runs that have a value.
    pub fn spread(&self, value: Value) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| value(run)))
    }

    /// The median; nothing where there is none.
    pub fn shown(&self, decimals: usize, value: Value) -> String {
        let spread = self.spread(value);
        spread.map_or(String::new(), |s| format!("{:.decimals$}", s.median))
    }
}

impl FoldRow<'_> {
    /// Over the runs that have a value.
    pub fn spread(&self, value: FoldValue) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| value(run)))
    }

    /// Their names.
    pub fn models(&self) -> String {
        self.runs[0].models.join(", ")
    }

    /// How many rows a row of the ledger comes to.
    pub fn slices_per_row(&self) -> Option<f64> {
        Some(float(self.runs[0].slices)? / float(self.first.rows)?)
    }
}

fn project_us(figures: &Figures) -> f64 {
    figures.models.as_ref().map_or(0.0, |m| m.project_us)
}

/// Counts here are far below 2^32; what is not has no place in a table.
pub fn float(number: impl TryInto<u32>) -> Option<f64> {
    number.try_into().ok().map(f64::from)
}
