//! Whole imports of whole files.

mod berka;
mod formats;
mod publishing;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use millrace_schemas::Transaction;
use tempfile::TempDir;

use crate::source::Item;
use crate::{Destination, Error, Options, Progress, Summary, prepare};

/// A mapping for [`CSV`].
const MAP: &str = r#"
source = "test"
kind = "payment"
currency = "EUR"
id.derive_from = ["no"]
occurred_at = { value = "{day}", format = "%Y-%m-%d" }
amount = { value = "{amount}" }
direction = [{ debit = "acc:{no}", credit = "external:shop" }]
"#;

const CSV: &str = "no,day,amount\n1,2024-01-01,1.00\n2,2024-01-02,2.00\n3,2024-01-03,3.00\n";

/// A directory with input files, where refused rows go too.
struct Setup(TempDir);

impl Setup {
    fn new() -> Self {
        let setup = Self(TempDir::new().unwrap());
        setup.write("map.toml", MAP);
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Options for an input that needs no mapping.
    fn options(&self, input: &Path) -> Options {
        Options {
            input: input.to_owned(),
            map: None,
            format: None,
            refused: Some(self.path("refused.csv")),
            progress: Progress::Lines,
        }
    }

    /// Options for a CSV file and [`MAP`].
    fn csv_options(&self, input: &Path) -> Options {
        Options {
            map: Some(self.path("map.toml")),
            ..self.options(input)
        }
    }

    fn refused(&self) -> String {
        std::fs::read_to_string(self.path("refused.csv")).unwrap()
    }
}

async fn dry_run(options: &Options) -> Summary {
    let import = prepare(options).unwrap();
    let summary = import
        .run(Destination::DryRun, std::future::pending())
        .await;
    assert_eq!(
        summary.rows,
        summary.acknowledged + summary.refused + summary.failed
    );
    summary
}

fn error(options: &Options) -> Error {
    prepare(options).err().expect("the import cannot begin")
}

/// The transactions of the good rows.
fn transactions(options: &Options) -> Vec<Transaction<'static>> {
    let mut source = prepare(options).unwrap().source;
    std::iter::from_fn(|| source.next().unwrap())
        .filter_map(|item| match item {
            Item::Good { transaction, .. } => Some(transaction),
            Item::Refused { .. } => None,
        })
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
