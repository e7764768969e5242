//! `millrace parked`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use millrace_ledger::parking::{self, Resolved, Selection};
use millrace_ledger::pipeline::outcome::Resolution;
use millrace_ledger::store::parked::{self, Group, Listing, Parked as Record};
use tracing::info;

use crate::cli::{Database, Operator, Usage, print, print_raw, printable, reason};
use crate::parking::{Request, park_reason, resolve, seqs};

/// How many bytes of a value are shown as a dump.
const DUMP_MAX: usize = 4_096;

/// How much of a key, a header or a text is shown: characters, or bytes of what is no text.
const SHOWN_MAX: usize = 200;

/// What to do with parked records.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A record that cannot be understood is parked with everything that it had, and later records of its key \
wait behind it. Find out why (list, show), mend it (deploy a version that understands it) and \
replay; or discard what will never be understood and replay what waited.

Examples:
  millrace parked list
  millrace parked show --partition 3 --offset 1041
  millrace parked replay --parked-for unknown_schema --dry-run
  millrace parked discard --partition 3 --offset 1041 --reason 'not ours: INC-17'
  millrace parked replay --key alice"
)]
pub enum Parked {
    /// Count the open ones by reason, and show the first of them.
    List(List),
    /// Show one with its bytes and headers.
    Show(Show),
    /// Apply open ones and those behind them, in order, as far as they can be understood by now.
    Replay(Replay),
    /// Give up open ones for ever.
    Discard(Discard),
}

/// Flags of `millrace parked list`.
#[derive(Debug, Args)]
#[command(
    after_help = "The reason shown is what a record was parked for. `behind` says only that an earlier record of its key \
was parked then: whether it can be applied by itself, replay --dry-run tells.

Examples:
  millrace parked list
  millrace parked list --key alice --all
  millrace parked list --parked-for undecodable --limit 1000"
)]
pub struct List {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    which: Which,
    /// Resolved ones too.
    #[arg(long)]
    all: bool,
    /// Show at most so many records.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Flags of `millrace parked show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Bytes are shown as hexadecimal beside printable ASCII; nothing of them reaches the terminal raw unless \
--raw says so.

Examples:
  millrace parked show --partition 3 --offset 1041
  millrace parked show --partition 3 --offset 1041 --raw > record.bin"
)]
pub struct Show {
    #[command(flatten)]
    database: Database,
    /// The partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// The offset in the log.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,
    /// With this number, where several were parked at the offset.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    seq: Option<i64>,
    /// Write the value's bytes as they are, and nothing else.
    #[arg(long)]
    raw: bool,
}

/// Which parked records. All that is said must hold.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Of this partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Of this key, as text.
    #[arg(long, conflicts_with = "key_hex")]
    key: Option<String>,
    /// Of this key, as hexadecimal digits.
    #[arg(long, value_parser = key_hex)]
    key_hex: Option<Key>,
    /// Parked for this: behind, `unknown_schema`, undecodable, `database_refused`.
    #[arg(long, value_parser = parked_for)]
    parked_for: Option<&'static str>,
    /// At this offset in the log; with --partition.
    #[arg(long, requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// With this number, as list shows it; with --partition. Of a topic that was recreated, two records
    /// may have been parked at one offset.
    #[arg(long, requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    seq: Option<i64>,
}

/// A key's bytes.
#[derive(Debug, Clone)]
struct Key(Vec<u8>);

/// Flags of `millrace parked replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "With a chosen record all open ones of its key are replayed, in the log's order, under the partition's \
lock and beside its lane, byte for byte as they were parked. The first one that still cannot be applied \
keeps those behind it. What is posted is posted at its own key's next place; what is known is a duplicate. \
Exit status: 0, or 1 when records stay parked.

Examples:
  millrace parked replay --all --dry-run
  millrace parked replay --parked-for unknown_schema --reason 'version 2 understands it: INC-17'
  millrace parked replay --key alice"
)]
pub struct Replay {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    which: Which,
    /// Every open record.
    #[arg(long, conflicts_with_all = ["partition", "key", "key_hex", "parked_for", "offset", "seq"])]
    all: bool,
    #[command(flatten)]
    operator: Operator,
    /// Why; kept for ever.
    #[arg(long, value_parser = reason, default_value = "replayed")]
    reason: String,
    /// Only show what would become of them.
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `millrace parked discard`.
#[derive(Debug, Args)]
#[command(
    after_help = "Only the chosen records are given up; what waits behind them stays parked until it is replayed. Who \
discarded it, when and why stays beside the record, whose bytes stay too.

Examples:
  millrace parked discard --partition 3 --offset 1041 --reason 'sent by mistake: INC-17'
  millrace parked discard --key alice --parked-for undecodable --reason 'INC-17' --dry-run"
)]
pub struct Discard {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    operator: Operator,
    /// Why; kept for ever.
    #[arg(long, value_parser = reason)]
    reason: String,
    /// Only show how many there are.
    #[arg(long)]
    dry_run: bool,
}

impl Which {
    fn key(&self) -> Option<&[u8]> {
        let text = self.key.as_ref().map(String::as_bytes);
        text.or(self.key_hex.as_ref().map(|key| &key.0[..]))
    }

    fn selection(&self) -> Result<Selection, Usage> {
        let code = self.parked_for.map(park_reason).transpose();
        Ok(Selection {
            key: self.key().map(<[u8]>::to_vec),
            reason: code.map_err(Usage)?,
            log_offset: self.offset,
            seq: self.seq,
            also_keys: Vec::new(),
        })
    }

    fn is_empty(&self) -> bool {
        self.partition.is_none()
            && self.key().is_none()
            && self.parked_for.is_none()
            && self.offset.is_none()
            && self.seq.is_none()
    }
}

/// Lists, shows, replays or discards.
pub async fn run(parked: &Parked) -> anyhow::Result<ExitCode> {
    match parked {
        Parked::List(list) => run_list(list).await,
        Parked::Show(show) => run_show(show).await,
        Parked::Replay(replay) => run_replay(replay).await,
        Parked::Discard(discard) => run_discard(discard).await,
    }
}

async fn run_list(list: &List) -> anyhow::Result<ExitCode> {
    let mut connection = list.database.connect_migrated().await?;
    let listing = Listing {
        partition: list.which.partition,
        key: list.which.key(),
        reason: list.which.parked_for,
        log_offset: list.which.offset,
        seq: list.which.seq,
        all: list.all,
        with_bytes: false,
        limit: i64::from(list.limit) + 1,
    };
    for group in parked::groups(&mut connection, listing).await? {
        print_group(&group);
    }
    let records = parked::list(&mut connection, listing).await?;
    if records.is_empty() {
        print(match (list.which.is_empty(), list.all) {
            (true, false) => "nothing is parked; --all shows what was",
            (true, true) => "nothing was ever parked",
            (false, false) => "nothing parked matches; --all shows also what was resolved",
            (false, true) => "nothing that was ever parked matches",
        });
    }
    for record in records.iter().take(list.limit as usize) {
        print_record(record);
    }
    if records.len() > list.limit as usize {
        print("there are more: --limit shows them");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_group(group: &Group) {
    let Group {
        partition,
        reason,
        open,
        keys,
        oldest_age_s,
        first_offset,
        first_detail,
    } = group;
    print(&format!(
        "partition {partition}\t{reason}\t{open} open\tof {keys} keys\toldest {oldest_age_s} s\tfirst at \
         {first_offset}: {}",
        shown(first_detail.as_bytes())
    ));
}

fn print_record(record: &Record) {
    let key = match record.key.as_deref() {
        None => "(none)".into(),
        Some([]) => "(empty)".into(),
        Some(key) => shown(key),
    };
    let id = record.id.map(|id| format!("\tid {id}")).unwrap_or_default();
    let state = match (&record.resolution, &record.operator) {
        (Some(resolution), Some(operator)) => {
            format!("\t{resolution} by {}", shown(operator.as_bytes()))
        }
        _ => String::new(),
    };
    print(&format!(
        "record {}:{}\tseq {}\t{}\t{}\tkey {key}\t{} bytes with headers{id}\t{}{state}",
        record.partition,
        record.log_offset,
        record.seq,
        record.reason,
        record.parked_at,
        record.size_bytes,
        shown(record.detail.as_bytes()),
    ));
}

async fn run_show(show: &Show) -> anyhow::Result<ExitCode> {
    let mut connection = show.database.connect_migrated().await?;
    let listing = Listing {
        partition: Some(show.partition),
        log_offset: Some(show.offset),
        seq: show.seq,
        all: true,
        with_bytes: true,
        limit: 10,
        ..Listing::default()
    };
    let records = parked::list(&mut connection, listing).await?;
    if records.is_empty() {
        let (partition, offset) = (show.partition, show.offset);
        anyhow::bail!("no record of partition {partition} at offset {offset} was ever parked");
    }
    if show.raw && records.len() > 1 {
        let (count, seqs) = (records.len(), seqs(&records));
        anyhow::bail!("{count} records were parked there: say which with --seq {seqs}");
    }
    for record in &records {
        if show.raw {
            let value = record.bytes.as_deref().unwrap_or_default();
            print_raw(value);
        } else {
            print_whole(record);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_whole(record: &Record) {
    print_record(record);
    if let (Some(resolution), Some(why)) = (&record.resolution, &record.resolution_reason) {
        let at = record.resolved_at.as_deref().unwrap_or_default();
        print(&format!("{resolution} at {at}: {}", shown(why.as_bytes())));
    }
    for (name, value) in parking::headers(&record.headers) {
        let value = value.map_or("(null)".into(), shown);
        print(&format!("header {}: {value}", shown(name.as_bytes())));
    }
    match &record.bytes {
        None => print("no value"),
        Some(bytes) => print(dump(bytes).trim_end()),
    }
}

/// Lines of offset, hexadecimal and printable ASCII.
fn dump(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("value, {} bytes:\n", bytes.len());
    for (number, line) in bytes[..bytes.len().min(DUMP_MAX)].chunks(16).enumerate() {
        let digits = line.iter().map(|byte| format!("{byte:02x} "));
        let digits: String = digits.collect();
        let ascii: String = line
            .iter()
            .map(|byte| match byte {
                b' '..=b'~' => char::from(*byte),
                _ => '.',
            })
            .collect();
        let _ = writeln!(text, "{:06x}  {digits:<48} {ascii}", number * 16);
    }
    if bytes.len() > DUMP_MAX {
        let _ = writeln!(text, "(and {} more: --raw has all)", bytes.len() - DUMP_MAX);
    }
    text
}

/// Bytes that may do nothing to a terminal: neither controls nor marks that turn the writing around.
fn shown(bytes: &[u8]) -> String {
    let (text, is_whole) = if let Ok(text) = std::str::from_utf8(bytes) {
        let first: String = text.chars().take(SHOWN_MAX).collect();
        (printable(&first), first.len() == text.len())
    } else {
        let first = &bytes[..bytes.len().min(SHOWN_MAX)];
        let digits = hex::encode(first);
        (format!("0x{digits}"), first.len() == bytes.len())
    };
    if is_whole {
        text
    } else {
        format!("{text}... ({} bytes)", bytes.len())
    }
}

async fn run_replay(replay: &Replay) -> anyhow::Result<ExitCode> {
    if replay.which.is_empty() && !replay.all {
        let missing =
            "say which: --partition, --key, --key-hex, --parked-for, --offset, --seq or --all";
        return Err(Usage(missing.into()).into());
    }
    let request = Request {
        resolution: Resolution::Replayed,
        partition: replay.which.partition,
        selection: replay.which.selection()?,
        reason: replay.reason.clone(),
        operator: replay.operator.name(),
        dry_run: replay.dry_run,
    };
    run_request(&replay.database, &request).await
}

async fn run_discard(discard: &Discard) -> anyhow::Result<ExitCode> {
    if discard.which.is_empty() {
        let missing = "say which: --partition, --key, --key-hex, --parked-for, --offset or --seq";
        return Err(Usage(missing.into()).into());
    }
    let request = Request {
        resolution: Resolution::Discarded,
        partition: discard.which.partition,
        selection: discard.which.selection()?,
        reason: discard.reason.clone(),
        operator: discard.operator.name(),
        dry_run: discard.dry_run,
    };
    run_request(&discard.database, &request).await
}

async fn run_request(database: &Database, request: &Request) -> anyhow::Result<ExitCode> {
    database.connect_migrated().await?;
    let progress = |partition: i32, resolved: &Resolved| {
        let (count, remaining) = (resolved.count(), resolved.remaining_count);
        let dry_run = request.dry_run;
        info!(partition, resolved = count, remaining, dry_run, "resolving");
    };
    let resolved = resolve(&database.database_url, request, progress)
        .await
        .context("resolving parked records (what was committed stays; it is safe to repeat)")?;
    for record in &resolved.remaining {
        print(&format!(
            "stays parked\trecord {}:{}\t{}\t{}",
            record.partition,
            record.log_offset,
            record.reason,
            shown(record.detail.as_bytes())
        ));
    }
    for (verdict, count) in &resolved.records {
        print(&format!("{verdict}\t{count}"));
    }
    print(&outcome(request, &resolved));
    Ok(if resolved.remaining_count == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The last line: what became of the chosen records, and what is left to do.
fn outcome(request: &Request, resolved: &Resolved) -> String {
    let (count, remaining) = (resolved.count(), resolved.remaining_count);
    if count + remaining == 0 {
        return "no open record matches: millrace parked list shows what is open, with --all what was resolved"
            .into();
    }
    let would = if request.dry_run { "would be " } else { "" };
    let done = format!("{count} {would}{}", request.resolution.as_str());
    let left = match request.resolution {
        Resolution::Replayed => format!("{remaining} stay parked"),
        Resolution::Discarded => {
            "what waits behind them stays parked until: millrace parked replay".into()
        }
    };
    let dry = if request.dry_run {
        "; nothing was changed, this was a dry run"
    } else {
        ""
    };
    format!("{done}; {left}{dry}")
}

fn key_hex(text: &str) -> Result<Key, String> {
    hex::decode(text)
        .map(Key)
        .map_err(|_| "an even number of hexadecimal digits".into())
}

fn parked_for(text: &str) -> Result<&'static str, String> {
    park_reason(text)?;
    let reason = millrace_rules::ParkReason::ALL.into_iter();
    let mut named = reason.map(millrace_rules::ParkReason::as_str);
    named.find(|name| *name == text).ok_or_else(String::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_record_does_anything_to_a_terminal() {
        assert_eq!(shown("al\u{1b}[2Jice\n".as_bytes()), "al\\u{1b}[2Jice\\n");
        assert_eq!(shown("München".as_bytes()), "München");
        assert_eq!(shown(b"\xff\x00"), "0xff00");
        assert_eq!(shown("a\u{202e}b'\"\\".as_bytes()), "a\\u{202e}b'\"\\");
        assert_eq!(
            shown(&[b'k'; 201]),
            format!("{}... (201 bytes)", "k".repeat(200))
        );
        let text = dump(b"a\x1b[2J\xff");
        assert!(text.contains("000000  61 1b 5b 32 4a ff"), "{text}");
        assert!(text.contains(" a.[2J."), "{text}");
    }
}
