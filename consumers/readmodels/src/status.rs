//! What the background workers say about themselves.

use crate::model::{Mode, Model};
use crate::positions::Lag;
use crate::telemetry;

/// The workers' view of the database and the models, renewed with every look at the positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether the database can be worked with.
    pub database: Database,
    /// Every model of this binary; empty before the first look.
    pub models: Vec<ModelStatus>,
}

/// Whether the database can be worked with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Database {
    /// Not reached yet.
    #[default]
    Connecting,
    /// Positions are being read.
    Up,
    /// Why not. It is tried again and again.
    Away(String),
}

/// How far one model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatus {
    /// The model.
    pub model: &'static str,
    /// Who folds it.
    pub mode: Mode,
    /// Outcomes that are not folded yet, all partitions together.
    pub lag_seqs: i64,
    /// Partitions that could not be folded, with the reason.
    pub failed: Vec<(i32, String)>,
}

impl Status {
    /// Whether the workers can work. A model that fails is in [`ModelStatus::failed`] and does not
    /// keep the others from working.
    pub fn is_ready(&self) -> bool {
        self.database == Database::Up
    }

    pub(crate) fn of(models: &'static [Model], lags: &[Lag]) -> Self {
        let models = models.iter().map(|model| ModelStatus::of(model, lags));
        Self {
            database: Database::Up,
            models: models.collect(),
        }
    }
}

impl ModelStatus {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; lags stay below 2^53"
    )]
    fn of(model: &'static Model, lags: &[Lag]) -> Self {
        let own = || lags.iter().filter(|lag| lag.model == model.name);
        let lag_seqs = own().map(Lag::seqs).sum();
        metrics::gauge!(telemetry::LAG_SEQS, "model" => model.name).set(lag_seqs as f64);
        let mut failed: Vec<_> = own()
            .filter_map(|lag| Some((lag.partition, lag.error.clone()?)))
            .collect();
        failed.sort_unstable();
        Self {
            model: model.name,
            mode: model.mode,
            lag_seqs,
            failed,
        }
    }
}
