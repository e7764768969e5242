//! `millrace export`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use millrace_ledger::verify::export::{self, Tail};
use sqlx::PgConnection;
use tracing::info;

use crate::cli::{Database, eprint};
use crate::commands::verify::PROGRESS_INTERVAL;

/// A ledger is nobody else's business.
const MODE: u32 = 0o600;

/// The buffer before the file.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Flags of `millrace export`.
#[derive(Debug, Args)]
#[command(
    after_help = "One JSON object a line, every batch of every partition followed by its rows, up to the positions at the \
start: runs beside live load. The hash chains can be computed again from the file alone, without any \
database: see millrace checkpoint check --export.

Examples:
  millrace export ledger.ndjson.gz
  millrace checkpoint check month.json --public-key bank.key.pub --export ledger.ndjson.gz"
)]
pub struct Flags {
    /// The file to write, or - for the standard output; compressed when its name ends with .gz. A file that
    /// is there is replaced once the export is complete, and keeps its mode; a new one has mode 600.
    file: PathBuf,
    #[command(flatten)]
    database: Database,
}

/// Exports.
pub async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut connection = flags.database.connect_migrated().await?;
    let start = Instant::now();
    let target = Target::of(&flags.file)?;
    let is_gzip = is_gzip(&flags.file);
    let tail = match &target {
        Target::Stream(path) => {
            let file = OpenOptions::new().write(true).open(path);
            let file = file.with_context(|| format!("writing {}", path.display()))?;
            write(&mut connection, file, path, is_gzip).await?
        }
        Target::File { path, mode } => write_whole(&mut connection, path, *mode, is_gzip).await?,
    };
    // The standard output may be the export itself.
    eprint(&format!(
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

/// Where an export goes.
enum Target {
    /// What is no file of its own is written into: a pipe, a device.
    Stream(PathBuf),
    /// A file appears when it is complete.
    File { path: PathBuf, mode: u32 },
}

impl Target {
    fn of(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream("/dev/stdout".into()));
        }
        // Links are followed: what they lead to is replaced.
        let Ok(real) = path.canonicalize() else {
            return Ok(Self::File {
                path: path.to_owned(),
                mode: MODE,
            });
        };
        let metadata = real.metadata();
        let metadata = metadata.with_context(|| format!("writing {}", path.display()))?;
        if metadata.is_dir() {
            bail!("{} is a directory: name a file", path.display());
        }
        Ok(if metadata.is_file() {
            let mode = metadata.mode() & 0o777;
            Self::File { path: real, mode }
        } else {
            Self::Stream(path.to_owned())
        })
    }
}

/// Beside the file, until it is complete.
async fn write_whole(
    connection: &mut PgConnection,
    path: &Path,
    mode: u32,
    is_gzip: bool,
) -> anyhow::Result<Tail> {
    let mut partial = path.to_owned().into_os_string();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let context = || format!("writing {}", path.display());
    // One of an export that was killed may have any mode.
    std::fs::remove_file(&partial).ok();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)
        .with_context(context)?;
    let written = write(connection, file, &partial, is_gzip).await;
    let renamed = written.and_then(|tail| {
        std::fs::rename(&partial, path).with_context(context)?;
        Ok(tail)
    });
    if renamed.is_err() {
        std::fs::remove_file(&partial).ok();
    }
    renamed
}

async fn write(
    connection: &mut PgConnection,
    file: File,
    path: &Path,
    is_gzip: bool,
) -> anyhow::Result<Tail> {
    let context = || format!("writing {}", path.display());
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
    let file = file.with_context(context)?;
    if path.is_file() {
        file.sync_all().with_context(context)?;
    }
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
