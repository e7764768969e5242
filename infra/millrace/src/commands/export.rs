//! `millrace export`.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
    let is_gzip = is_gzip(&flags.file);
    let tail = match Target::of(&flags.file)? {
        Target::Stream(file) => write(&mut connection, file, &flags.file, is_gzip).await?,
        Target::File { path, mode } => write_whole(&mut connection, &path, mode, is_gzip).await?,
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
    /// What is no file is written into: a pipe, a device, the standard output.
    Stream(File),
    /// A file appears when it is complete.
    File { path: PathBuf, mode: u32 },
}

impl Target {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("writing {}", path.display());
        if path == Path::new("-") {
            let out = std::io::stdout().as_fd().try_clone_to_owned();
            return Ok(Self::Stream(out.with_context(context)?.into()));
        }
        let metadata = match path.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                let path = path.to_owned();
                return Ok(Self::File { path, mode: MODE });
            }
            metadata => metadata.with_context(context)?,
        };
        if metadata.is_dir() {
            bail!("{} is a directory: name a file", path.display());
        }
        if !metadata.is_file() {
            let stream = OpenOptions::new().write(true).open(path);
            return Ok(Self::Stream(stream.with_context(context)?));
        }
        // Links are followed: what they lead to is replaced.
        Ok(Self::File {
            path: path.canonicalize().with_context(context)?,
            mode: metadata.mode() & 0o777,
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
    // Another export to the same file has one of its own.
    partial.push(format!(".{}.part", std::process::id()));
    let partial = PathBuf::from(partial);
    let context = || format!("writing {}", path.display());
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&partial)
        .with_context(context)?;
    file.set_permissions(Permissions::from_mode(mode))
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
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
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
