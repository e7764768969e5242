//! Every metric of this crate, with its unit and help text.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Folds that worked, by model, inline and background.
pub const FOLDS: &str = "millrace_readmodel_folds_total";
/// Slices written, by model.
pub const ROWS: &str = "millrace_readmodel_rows_total";
/// Outcomes folded, by model.
pub const SEQS: &str = "millrace_readmodel_seqs_total";
/// Outcomes that are not folded yet, by model.
pub const LAG_SEQS: &str = "millrace_readmodel_lag_seqs";
/// Time of a fold, by model.
pub const FOLD_SECONDS: &str = "millrace_readmodel_fold_seconds";
/// Folds that failed, by model, once per partition.
pub const FAILURES: &str = "millrace_readmodel_failures_total";

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_counter!(FOLDS, Unit::Count, "Folds of a read model that worked.");
    describe_counter!(
        ROWS,
        Unit::Count,
        "Rows (slices) written to a read model's table."
    );
    describe_counter!(
        SEQS,
        Unit::Count,
        "Stored outcomes that a read model has folded."
    );
    describe_gauge!(
        LAG_SEQS,
        Unit::Count,
        "Stored outcomes that a read model has not folded yet."
    );
    describe_histogram!(FOLD_SECONDS, Unit::Seconds, "Time of a fold.");
    describe_counter!(
        FAILURES,
        Unit::Count,
        "Folds of a read model that failed, per partition."
    );
}
