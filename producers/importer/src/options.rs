//! What to import and how.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What to import and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file; `-` is standard input.
    pub input: PathBuf,
    /// The mapping file; CSV needs one, other formats take none.
    pub map: Option<PathBuf>,
    /// The format, where the file's name does not tell it.
    pub format: Option<Format>,
    /// Where refused rows are written; `None` is [`Options::default_refused`].
    pub refused: Option<PathBuf>,
    /// How to show progress.
    pub progress: Progress,
}

/// The format of the decompressed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Rows of columns, any delimiter; needs a mapping.
    Csv,
    /// One transaction as JSON in each line.
    Ndjson,
    /// An Avro object container file of transactions.
    Avro,
}

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar on standard error, for terminals.
    Bar,
    /// A line in the log every few seconds.
    Lines,
}

impl Options {
    /// Whether the input is standard input.
    pub fn is_stdin(&self) -> bool {
        self.input == Path::new("-")
    }

    /// In the working directory, because the file's own may be read-only: the file's name without what
    /// tells compression and format, then `.refused.csv`.
    pub fn default_refused(&self) -> PathBuf {
        let name = self.input.file_name().unwrap_or_default().to_string_lossy();
        if self.is_stdin() {
            return PathBuf::from("stdin.refused.csv");
        }
        let plain = without_compression(&name);
        let stem = match plain.rsplit_once('.') {
            Some((stem, extension)) if Format::from_extension(extension).is_some() => stem,
            _ => plain,
        };
        PathBuf::from(format!("{stem}.refused.csv"))
    }

    /// The given format, or the one that the file's name tells.
    pub(crate) fn resolved_format(&self) -> Option<Format> {
        if self.format.is_some() {
            return self.format;
        }
        let name = self.input.file_name()?.to_string_lossy();
        let extension = without_compression(&name).rsplit_once('.')?.1.to_owned();
        Format::from_extension(&extension)
    }
}

impl Format {
    /// Every format, for help texts.
    pub const ALL: [Self; 3] = [Self::Csv, Self::Ndjson, Self::Avro];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Avro => "avro",
        }
    }

    /// What the rows of such a file are counted in.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Csv | Self::Ndjson => "line",
            Self::Avro => "record",
        }
    }

    fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "asc" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "avro" => Some(Self::Avro),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not csv, ndjson or avro"))
    }
}

fn without_compression(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((plain, extension))
            if extension.eq_ignore_ascii_case("gz") || extension.eq_ignore_ascii_case("zst") =>
        {
            plain
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format_and_the_refused_file() {
        for (input, format, refused) in [
            ("a.csv", Some(Format::Csv), "a.refused.csv"),
            ("dir/a.b.CSV.gz", Some(Format::Csv), "a.b.refused.csv"),
            ("a.jsonl.zst", Some(Format::Ndjson), "a.refused.csv"),
            ("a.ndjson", Some(Format::Ndjson), "a.refused.csv"),
            ("a.avro", Some(Format::Avro), "a.refused.csv"),
            ("a.txt", None, "a.txt.refused.csv"),
            ("a.gz", None, "a.refused.csv"),
            ("csv", None, "csv.refused.csv"),
            ("-", None, "stdin.refused.csv"),
        ] {
            let options = Options {
                input: input.into(),
                map: None,
                format: None,
                refused: None,
                progress: Progress::Lines,
            };
            assert_eq!(options.resolved_format(), format, "{input}");
            assert_eq!(options.default_refused(), Path::new(refused), "{input}");
        }
    }

    #[test]
    fn format_names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
        }
        assert!("xml".parse::<Format>().unwrap_err().contains("\"xml\""));
    }
}
