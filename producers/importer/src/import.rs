//! Reading, publishing, stopping.
//!
//! ```text
//! thread: read, decompress, split, map      task: publish, write refused rows, count
//!         Source -> batches of Item ==bounded channel==> Work -> Summary
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_publisher::Publisher;
use millrace_schemas::Transaction;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use crate::confirm::{Confirmations, Failure};
use crate::options::Progress;
use crate::progress::{self, Meter};
use crate::refused::{RefusedFile, RefusedRow, Why};
use crate::source::{Item, Source, Unreadable};
use crate::summary::{End, REFUSED_SHOWN_MAX, Summary};

/// Rows that travel together: enough to make the channel's cost vanish.
const BATCH_ROWS_MAX: usize = 256;

/// Bytes that travel together, where rows are refused with all that stands in them.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches read ahead of publishing: some 4,000 rows, or 4 MiB of refused ones.
const BATCHES_AHEAD_MAX: usize = 16;

/// Where the rows go.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// Nowhere: every row is read, mapped and validated.
    DryRun,
    /// To the publisher's topic; every delivery is waited for.
    Topic(&'a Publisher),
}

/// An import that can begin: the input is open and the mapping fits it.
pub struct Import {
    pub(crate) source: Source,
    pub(crate) meter: Meter,
    pub(crate) refused: PathBuf,
    pub(crate) progress: Progress,
    /// What rows are counted in.
    pub(crate) unit: &'static str,
}

impl Import {
    /// Reads to the end, or until `stop` is ready; then waits for the answers to all that was handed
    /// in. What goes wrong on the way is in the summary.
    pub async fn run(
        self,
        destination: Destination<'_>,
        stop: impl Future<Output = ()>,
    ) -> Summary {
        let start = Instant::now();
        let mut work = Work {
            destination,
            confirmations: Arc::new(Confirmations::default()),
            meter: &self.meter,
            unit: self.unit,
            handed_in: 0,
            refused: 0,
            failed: 0,
            first_refused: Vec::new(),
            refused_file: RefusedFile::new(self.refused),
        };
        let stop = pin!(stop);
        let end = tokio::select! {
            end = work.pump(self.source, stop) => end,
            never = progress::show(self.progress, &self.meter) => match never {},
        };
        work.summary(end, start)
    }
}

/// What travels from the reading thread.
enum Message {
    Rows(Vec<Item>),
    End,
    Unreadable(Unreadable),
}

/// The publishing side and its books: rows read = acknowledged + refused + failed.
struct Work<'a> {
    destination: Destination<'a>,
    confirmations: Arc<Confirmations>,
    meter: &'a Meter,
    unit: &'static str,
    /// Rows that the publisher took; in a dry run, good rows.
    handed_in: u64,
    refused: u64,
    failed: u64,
    first_refused: Vec<RefusedRow>,
    refused_file: RefusedFile,
}

impl Work<'_> {
    async fn pump(&mut self, source: Source, mut stop: Pin<&mut impl Future<Output = ()>>) -> End {
        let mut messages = match start_reading(source) {
            Ok(messages) => messages,
            Err(error) => return End::Broken(format!("no thread could be started: {error}")),
        };
        let end = loop {
            let message = tokio::select! {
                biased;
                () = &mut stop => break End::Stopped,
                message = messages.recv() => message,
            };
            let taken = match message {
                Some(Message::Rows(items)) => self.take(items, stop.as_mut()).await,
                Some(Message::End) => Err(End::Complete),
                Some(Message::Unreadable(why)) => Err(End::Broken(why.to_string())),
                None => Err(End::Broken("the reading thread died".into())),
            };
            if let Err(end) = taken {
                break end;
            }
        };
        // The thread ends when it finds nobody to send to.
        drop(messages);
        match (self.settle().await, end) {
            (Err(later), End::Complete | End::Stopped) => later,
            (_, end) => end,
        }
    }

    /// Publishes the good rows and writes down the others.
    async fn take(
        &mut self,
        items: Vec<Item>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), End> {
        for item in items {
            match item {
                Item::Refused { row, raw } => {
                    self.refused += 1;
                    self.meter.refused.store(self.refused, Ordering::Relaxed);
                    self.write_down(row, &raw)?;
                }
                Item::Good { line, transaction } => {
                    tokio::select! {
                        biased;
                        // A record that still waits for room was not handed in.
                        () = &mut stop => return Err(End::Stopped),
                        taken = self.hand_in(line, &transaction) => taken?,
                    }
                }
            }
            self.meter.rows.fetch_add(1, Ordering::Relaxed);
        }
        self.take_failures()
    }

    async fn hand_in(&mut self, line: u64, transaction: &Transaction<'_>) -> Result<(), End> {
        let answer = match self.destination {
            Destination::DryRun => Ok(()),
            Destination::Topic(publisher) => {
                let confirmations = Arc::clone(&self.confirmations);
                let note = move |answer| confirmations.note(line, answer);
                publisher.publish_with(transaction, note).await
            }
        };
        match answer {
            Ok(()) => {
                self.handed_in += 1;
                Ok(())
            }
            Err(error) => self.fail(&Failure { line, error }),
        }
    }

    /// Waits for all answers.
    async fn settle(&mut self) -> Result<(), End> {
        let Destination::Topic(publisher) = self.destination else {
            return Ok(());
        };
        publisher.drain().await;
        let failures = self.take_failures();
        let unanswered = self.handed_in - self.confirmations.answered();
        if unanswered > 0 {
            self.failed += unanswered;
            return Err(End::Broken(format!("{unanswered} rows have no answer")));
        }
        failures
    }

    fn take_failures(&mut self) -> Result<(), End> {
        let mut result = Ok(());
        for failure in self.confirmations.take_failures() {
            let failed = self.fail(&failure);
            result = result.and(failed);
        }
        result
    }

    fn fail(&mut self, failure: &Failure) -> Result<(), End> {
        self.failed += 1;
        let unit = self.unit;
        let (line, detail) = (failure.line, failure.detail());
        let row = RefusedRow {
            line,
            why: Why::NotDelivered,
            detail: detail.clone(),
        };
        self.write_down(row, "")?;
        if failure.stops() {
            return Err(End::Broken(format!(
                "{unit} {line} was not acknowledged: {detail}"
            )));
        }
        Ok(())
    }

    fn write_down(&mut self, row: RefusedRow, raw: &str) -> Result<(), End> {
        let written = self.refused_file.write(&row, raw);
        if self.first_refused.len() < REFUSED_SHOWN_MAX {
            self.first_refused.push(row);
        }
        written.map_err(|error| unwritable(self.refused_file.path(), &error))
    }

    fn summary(self, mut end: End, start: Instant) -> Summary {
        let dry_run = matches!(self.destination, Destination::DryRun);
        let acknowledged = match self.destination {
            Destination::DryRun => self.handed_in,
            Destination::Topic(_) => self.confirmations.acknowledged(),
        };
        let refused_path = self.refused_file.path().to_owned();
        let is_clean = end == End::Complete && !dry_run;
        let refused_file = self.refused_file.finish(is_clean).unwrap_or_else(|error| {
            end = unwritable(&refused_path, &error);
            None
        });
        Summary {
            rows: acknowledged + self.refused + self.failed,
            acknowledged,
            refused: self.refused,
            failed: self.failed,
            first_refused: self.first_refused,
            refused_file,
            end,
            dry_run,
            unit: self.unit,
            elapsed: start.elapsed(),
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> End {
    let path = path.display();
    End::Broken(format!("refused rows cannot be written to {path}: {error}"))
}

fn start_reading(source: Source) -> io::Result<Receiver<Message>> {
    let (sender, receiver) = channel(BATCHES_AHEAD_MAX);
    // Not one of the runtime's: a read of standard input may never return, and that must not keep
    // the process from ending.
    std::thread::Builder::new()
        .name("import-read".into())
        .spawn(move || read(source, &sender))?;
    Ok(receiver)
}

/// Reads to the end, or until nobody listens any more.
fn read(mut source: Source, sender: &Sender<Message>) {
    loop {
        let (items, last) = read_batch(&mut source);
        if sender.blocking_send(Message::Rows(items)).is_err() {
            return;
        }
        if let Some(last) = last {
            // Whoever has stopped listening does not need to know.
            let _ = sender.blocking_send(last);
            return;
        }
    }
}

/// The next rows, and the message that ends the reading, if it is time.
fn read_batch(source: &mut Source) -> (Vec<Item>, Option<Message>) {
    let mut items = Vec::with_capacity(BATCH_ROWS_MAX);
    let mut size_bytes = 0;
    while items.len() < BATCH_ROWS_MAX && size_bytes < BATCH_BYTES_MAX {
        match source.next() {
            Ok(Some(item)) => {
                size_bytes += item.size_bytes();
                items.push(item);
            }
            Ok(None) => return (items, Some(Message::End)),
            Err(why) => return (items, Some(Message::Unreadable(why))),
        }
    }
    (items, None)
}
