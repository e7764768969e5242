//! Files and standard input, decompressed, with the bytes read so far.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::Bytes;

/// An input that is open.
pub(crate) struct Input {
    /// The decompressed bytes.
    pub(crate) bytes: Bytes,
    /// The size of the file as it is, where that is known.
    pub(crate) size_bytes: Option<u64>,
    /// How much of the file was read.
    pub(crate) read_bytes: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Opens a file.
pub(crate) fn open(path: &Path) -> io::Result<Input> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let size_bytes = metadata.is_file().then_some(metadata.len());
    new(file, of_extension(path), size_bytes)
}

/// Opens standard input.
pub(crate) fn stdin() -> io::Result<Input> {
    new(io::stdin(), None, None)
}

fn new(
    raw: impl Read + Send + 'static,
    compression: Option<Compression>,
    size_bytes: Option<u64>,
) -> io::Result<Input> {
    let read_bytes = Arc::new(AtomicU64::new(0));
    let mut raw = BufReader::new(Counting {
        raw,
        read_bytes: Arc::clone(&read_bytes),
    });
    let compression = match compression {
        Some(compression) => compression,
        None => of_first_bytes(raw.fill_buf()?),
    };
    let bytes: Bytes = match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(MultiGzDecoder::new(raw)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(raw)?),
    };
    Ok(Input {
        bytes,
        size_bytes,
        read_bytes,
    })
}

fn of_extension(path: &Path) -> Option<Compression> {
    let extension = path.extension()?.to_str()?;
    if extension.eq_ignore_ascii_case("gz") {
        Some(Compression::Gzip)
    } else if extension.eq_ignore_ascii_case("zst") {
        Some(Compression::Zstd)
    } else {
        None
    }
}

/// What no name tells, the first bytes do: no text begins like this.
fn of_first_bytes(bytes: &[u8]) -> Compression {
    match bytes {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

struct Counting<R> {
    raw: R,
    read_bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(into)?;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What is wrong with the input, in words: a decoder's own of a file that was cut off tell little.
pub(crate) fn problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("the compressed input is cut off here ({error})"),
        _ => error.to_string(),
    }
}
