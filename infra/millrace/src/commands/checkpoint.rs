//! `millrace checkpoint`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use flate2::read::MultiGzDecoder;
use millrace_ledger::group::SystemClock;
use millrace_ledger::pipeline::lane::Clock as _;
use millrace_ledger::verify::checkpoint::Checkpoint;
use millrace_ledger::verify::{Report, export};

use crate::cli::{Database, print};
use crate::commands::export::is_gzip;
use crate::commands::verify::{Progress, print_findings};
use crate::signing::{self, Signer};

/// The buffer behind the file.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What to do with checkpoints.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Whoever can write to the database could change old rows and compute all hash chains again. A checkpoint \
that is kept elsewhere shows it: millrace verify --checkpoint compares a database with it, checkpoint \
check an exported file, without any database.

Examples:
  millrace checkpoint keygen bank.key
  millrace checkpoint write month.json --key bank.key
  millrace checkpoint check month.json --public-key bank.key.pub
  millrace verify --checkpoint month.json --public-key bank.key.pub"
)]
pub enum Checkpoints {
    /// Make a key pair for signing.
    Keygen(Keygen),
    /// Write where all hash chains are now.
    Write(Box<Write>),
    /// Sign a checkpoint that is there.
    Sign(Sign),
    /// Check a signature, and an export against the checkpoint. Needs no database.
    Check(Check),
}

/// Flags of `millrace checkpoint keygen`.
#[derive(Debug, Args)]
#[command(
    after_help = "An Ed25519 key as PKCS #8 in PEM, as OpenSSL has them. Keep it where the database's administrators have \
no access; the public key beside it is for everybody.

Example:
  millrace checkpoint keygen bank.key"
)]
pub struct Keygen {
    /// The private key's file, mode 600; the public key goes to the same name with .pub.
    file: PathBuf,
}

/// Flags of `millrace checkpoint write`.
#[derive(Debug, Args)]
#[command(
    after_help = "Per partition: how many batches and rows there are, the position, the chain head and the counts by verdict. \
Run millrace verify before, so that what is marked is known to be right.

Examples:
  millrace checkpoint write month.json --key bank.key
  openssl pkeyutl -verify -rawin -pubin -inkey bank.key.pub -in month.json -sigfile month.json.sig"
)]
pub struct Write {
    /// The file to write; one that is there is not replaced.
    file: PathBuf,
    #[command(flatten)]
    database: Database,
    /// The private key to sign with; the signature goes to the file's name with .sig.
    #[arg(long)]
    key: Option<PathBuf>,
}

/// Flags of `millrace checkpoint sign`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  millrace checkpoint sign month.json --key bank.key")]
pub struct Sign {
    /// The checkpoint.
    file: PathBuf,
    /// The private key; the signature goes to the checkpoint's name with .sig.
    #[arg(long)]
    key: PathBuf,
}

/// Flags of `millrace checkpoint check`.
#[derive(Debug, Args)]
#[command(
    after_help = "The signature is that of the file beside it with .sig. With --export the hash chains are computed again from \
the exported rows and must lead through the checkpoint's heads. Exit status: 0 when everything holds, 1 \
with what does not.

Example:
  millrace checkpoint check month.json --public-key bank.key.pub --export ledger.ndjson.gz"
)]
pub struct Check {
    /// The checkpoint.
    file: PathBuf,
    /// The public key of whoever signed it.
    #[arg(long)]
    public_key: PathBuf,
    /// A file of millrace export.
    #[arg(long)]
    export: Option<PathBuf>,
}

/// Does it.
pub async fn run(checkpoints: &Checkpoints) -> anyhow::Result<ExitCode> {
    match checkpoints {
        Checkpoints::Keygen(Keygen { file }) => {
            signing::generate(file)?;
            let public = signing::public_key_path(file);
            print(&format!(
                "{} (keep it safe), {}",
                file.display(),
                public.display()
            ));
        }
        Checkpoints::Write(flags) => run_write(flags).await?,
        Checkpoints::Sign(Sign { file, key }) => {
            let (bytes, _) = read_file(file)?;
            Signer::read(key)?.sign(file, &bytes)?;
            print(&signing::signature_path(file).display().to_string());
        }
        Checkpoints::Check(flags) => return run_check(flags),
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_write(flags: &Write) -> anyhow::Result<()> {
    // What keeps it from being signed is said before it is written.
    let signer = flags.key.as_deref().map(Signer::read).transpose()?;
    signing::refuse_existing(&flags.file)?;
    if signer.is_some() {
        signing::refuse_existing(&signing::signature_path(&flags.file))?;
    }
    let mut connection = flags.database.connect_migrated().await?;
    let now = SystemClock::default().wall_micros();
    let checkpoint = Checkpoint::take(&mut connection, now)
        .await
        .context("reading the chain heads")?;
    let bytes = checkpoint.to_bytes();
    signing::write_new(&flags.file, &bytes, 0o644)?;
    if let Some(signer) = &signer {
        signer.sign(&flags.file, &bytes)?;
    }
    print(&format!(
        "{}: {}, {}",
        flags.file.display(),
        described(&checkpoint),
        if signer.is_some() {
            "signed"
        } else {
            "not signed"
        }
    ));
    Ok(())
}

fn run_check(flags: &Check) -> anyhow::Result<ExitCode> {
    let checkpoint = read_signed(&flags.file, &flags.public_key)?;
    print(&format!(
        "{}: {}, the signature is right",
        flags.file.display(),
        described(&checkpoint)
    ));
    let Some(path) = &flags.export else {
        return Ok(ExitCode::SUCCESS);
    };
    let start = Instant::now();
    let mut progress = Progress::new(start);
    let mut input = open_export(path)?;
    let report = export::check(&mut input, &checkpoint, |report| progress.show(report));
    print_findings(&report);
    let Report {
        partitions,
        batches,
        rows,
        findings,
        ..
    } = &report;
    print(&format!(
        "{}: {partitions} partitions, {batches} batches, {rows} rows in {:.1} s: {}",
        path.display(),
        start.elapsed().as_secs_f64(),
        if findings.is_empty() {
            "everything holds"
        } else {
            "it does not hold"
        }
    ));
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn open_export(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    Ok(if is_gzip(path) {
        Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            MultiGzDecoder::new(file),
        ))
    } else {
        Box::new(file)
    })
}

/// A checkpoint of a file, with its bytes.
pub fn read_file(path: &Path) -> anyhow::Result<(Vec<u8>, Checkpoint)> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let checkpoint =
        Checkpoint::parse(&bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok((bytes, checkpoint))
}

/// The same, whose signature must be right.
pub fn read_signed(path: &Path, public_key: &Path) -> anyhow::Result<Checkpoint> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    signing::check(path, &bytes, public_key)?;
    let checkpoint = Checkpoint::parse(&bytes);
    checkpoint.with_context(|| format!("reading {}", path.display()))
}

fn described(checkpoint: &Checkpoint) -> String {
    let rows: i64 = checkpoint.partitions.iter().map(|mark| mark.next_seq).sum();
    let taken_at = jiff::Timestamp::from_microsecond(checkpoint.taken_at)
        .map_or("at no known time".into(), |at| at.to_string());
    format!(
        "checkpoint of {taken_at}, topic {}, {} partitions, {rows} rows",
        checkpoint.topic,
        checkpoint.partitions.len()
    )
}
