//! Everything that is checked before the first row.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use crate::error::Error;
use crate::import::Import;
use crate::mapping::file::MapFile;
use crate::mapping::{self, Columns, Mapper};
use crate::options::{Format, Options};
use crate::progress::Meter;
use crate::source::csv::{Dialect, Rows};
use crate::source::input::{self, Input};
use crate::source::{Bytes, Objects, Records, Source};

/// Opens the input and checks everything that can be checked before the first row. Blocks while the
/// header is read.
pub fn prepare(options: &Options) -> Result<Import, Error> {
    let format = options.resolved_format().ok_or_else(|| {
        let input = options.input.display();
        Error::Usage(format!(
            "the name {input} does not tell the format: give --format csv, ndjson or avro"
        ))
    })?;
    let map = read_map(options, format)?;
    let refused = options
        .refused
        .clone()
        .unwrap_or_else(|| options.default_refused());
    check_refused(&refused, options)?;
    let path = &options.input;
    let opened = if options.is_stdin() {
        input::stdin()
    } else {
        input::open(path)
    };
    let Input {
        bytes,
        size_bytes,
        read_bytes,
    } = opened.map_err(|source| unreadable(path, source))?;
    let source = match map {
        Some((map_path, map)) => csv_source(bytes, map, &map_path, path)?,
        None if format == Format::Avro => Source::Avro(Box::new(
            Records::new(bytes).map_err(|problem| content(path, problem))?,
        )),
        None => Source::Ndjson(Objects::new(bytes).map_err(|source| unreadable(path, source))?),
    };
    Ok(Import {
        source,
        meter: Meter {
            size_bytes,
            read_bytes,
            rows: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        },
        refused,
        progress: options.progress,
        unit: format.unit(),
    })
}

/// The mapping file, which goes with CSV and with nothing else.
fn read_map(options: &Options, format: Format) -> Result<Option<(PathBuf, MapFile)>, Error> {
    match (format, &options.map) {
        (Format::Csv, None) => Err(Error::Usage(
            "csv needs a mapping that says what its columns mean: give --map MAP.toml".into(),
        )),
        (Format::Csv, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
            let map = mapping::parse(&text).map_err(|problem| wrong(path, problem))?;
            Ok(Some((path.clone(), map)))
        }
        (Format::Ndjson | Format::Avro, Some(_)) => Err(Error::Usage(format!(
            "--map is for csv; {format} has the fields of a transaction already"
        ))),
        (Format::Ndjson | Format::Avro, None) => Ok(None),
    }
}

/// Refused rows must not be written over what is read, and must be writable when they come.
fn check_refused(refused: &Path, options: &Options) -> Result<(), Error> {
    let Ok(refused_path) = refused.canonicalize() else {
        return check_writable(refused);
    };
    let read = std::iter::once(&options.input).chain(&options.map);
    for path in read {
        if path.canonicalize().is_ok_and(|path| path == refused_path) {
            return Err(Error::Usage(format!(
                "refused rows would be written over {}: give another --refused",
                path.display()
            )));
        }
    }
    check_writable(refused)
}

/// Tries it and leaves everything as it was.
fn check_writable(path: &Path) -> Result<(), Error> {
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    let tried = match opened {
        Ok(_) if is_new => std::fs::remove_file(path),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    tried.map_err(|error| {
        let path = path.display();
        Error::Usage(format!(
            "refused rows cannot be written to {path} ({error}): give another --refused"
        ))
    })
}

fn csv_source(bytes: Bytes, map: MapFile, map_path: &Path, input: &Path) -> Result<Source, Error> {
    let dialect = Dialect::new(&map.file).map_err(|problem| wrong(map_path, problem))?;
    let mut rows = Rows::new(bytes, dialect).map_err(|error| unreadable(input, error))?;
    let columns = if map.file.header {
        let columns = header(&mut rows, input)?;
        check_columns(&map.file.columns, &columns).map_err(|problem| wrong(map_path, problem))?;
        columns
    } else if map.file.columns.is_empty() {
        let problem = "file.columns: without a header the columns must be named here";
        return Err(wrong(map_path, problem.into()));
    } else {
        Columns {
            names: map.file.columns.clone(),
            place: "file.columns".into(),
        }
    };
    rows.expect_columns(columns.names.len());
    let mapper = Mapper::new(map, columns).map_err(|error| wrong(map_path, error.to_string()))?;
    Ok(Source::Csv(rows, Box::new(mapper)))
}

fn header(rows: &mut Rows<Bytes>, input: &Path) -> Result<Columns, Error> {
    match rows.next().map_err(|error| unreadable(input, error))? {
        None => Err(content(input, "it is empty, without a header".into())),
        Some((line, Err(broken))) => Err(content(
            input,
            format!("line {line}, the header: {}", broken.refusal.detail),
        )),
        Some((line, Ok(row))) => Ok(Columns {
            names: row.values().map(String::from).collect(),
            place: format!("line {line}"),
        }),
    }
}

/// Where the mapping names the columns too, they must be those of the header.
fn check_columns(named: &[String], found: &Columns) -> Result<(), String> {
    if named.is_empty() || named == found.names {
        return Ok(());
    }
    let same = named.iter().zip(&found.names).take_while(|(a, b)| a == b);
    let at = same.count();
    let show = |names: &[String]| {
        names
            .get(at)
            .map_or("missing".into(), |name| format!("{name:?}"))
    };
    Err(format!(
        "file.columns: column {} is {} here and {} in {}",
        at + 1,
        show(named),
        show(&found.names),
        found.place
    ))
}

fn wrong(path: &Path, problem: String) -> Error {
    Error::Mapping {
        path: path.to_owned(),
        problem,
    }
}

fn content(path: &Path, problem: String) -> Error {
    Error::Content {
        path: path.to_owned(),
        problem,
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        source,
    }
}
