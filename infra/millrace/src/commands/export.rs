//! `millrace export`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use millrace_ledger::verify::export::{self, Tail};
use sqlx::PgConnection;
use tracing::info;

use crate::cli::{Database, print};
use crate::commands::verify::PROGRESS_INTERVAL;

/// The buffer before the file.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Flags of `millrace export`.
#[derive(Debug, Args)]
#[command(
    after_help = "One JSON object a line, every batch of every partition followed by its rows, up to the positions at the
start: runs beside live load. The hash chains can be computed again from the file alone, without any
database: see millrace checkpoint check --export.

Examples:
  millrace export ledger.ndjson.gz
  millrace checkpoint check month.json --public-key bank.key.pub --export ledger.ndjson.gz"
)]
pub struct Flags {
    /// The file to write; compressed when its name ends with .gz. One that is there is replaced once the
    /// export is complete.
    file: PathBuf,
    #[command(flatten)]
    database: Database,
}

/// Exports.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect_migrated().await?;
    let mut partial = flags.file.clone().into_os_string();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let start = Instant::now();
    let tail = write(&mut connection, &partial, is_gzip(&flags.file)).await?;
    std::fs::rename(&partial, &flags.file)
        .with_context(|| format!("writing {}", flags.file.display()))?;
    print(&format!(
        "{}: {} partitions, {} batches, {} rows in {:.1} s",
        flags.file.display(),
        tail.partitions,
        tail.batches,
        tail.rows,
        start.elapsed().as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Whether a file of this name is compressed.
pub fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

async fn write(connection: &mut PgConnection, path: &Path, is_gzip: bool) -> anyhow::Result<Tail> {
    let context = || format!("writing {}", path.display());
    let file = File::create(path).with_context(context)?;
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let tail = if is_gzip {
        let mut gzip = GzEncoder::new(file, Compression::fast());
        let tail = write_to(connection, &mut gzip).await?;
        file = gzip.finish().with_context(context)?;
        tail
    } else {
        write_to(connection, &mut file).await?
    };
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all())
        .with_context(context)?;
    Ok(tail)
}

async fn write_to(connection: &mut PgConnection, out: &mut impl Write) -> anyhow::Result<Tail> {
    let mut shown = Instant::now();
    let progress = |tail: &Tail| {
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            let Tail {
                partitions,
                batches,
                rows,
            } = *tail;
            info!(partitions, batches, rows, "exporting");
        }
    };
    let written = export::write(connection, out, progress).await;
    written.context("exporting")
}
