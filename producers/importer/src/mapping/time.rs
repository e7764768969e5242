//! Dates and times in text to microseconds.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// How times are written.
///
/// Formats are those of `strptime`. A two-digit year (`%y`) means 1969 to 2068, as POSIX has it; a time
/// of day that is not there is midnight; digits beyond the microsecond are cut off. Without an offset
/// in the text the time is local to the mapping's time zone: one that comes twice (clocks go back) is
/// the first of the two, one that never comes is moved on by the gap.
#[derive(Debug)]
pub(super) struct TimeStyle {
    format: Format,
    time_zone: TimeZone,
}

#[derive(Debug)]
enum Format {
    /// RFC 3339, the offset included.
    Rfc3339,
    Strptime {
        format: String,
        /// The text's only length, in a format like `%y%m%d`: `strptime` takes single digits too, and
        /// without anything between the numbers it would split 93101 in its own way.
        length: Option<usize>,
    },
}

impl TimeStyle {
    /// Fails when the zone is unknown or the format cannot give a date.
    pub(super) fn new(format: &str, time_zone: &str) -> Result<Self, String> {
        let time_zone = match time_zone {
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|error| error.to_string())?,
        };
        if format == "rfc3339" {
            let format = Format::Rfc3339;
            return Ok(Self { format, time_zone });
        }
        let sample = date(2001, 2, 13)
            .at(14, 15, 16, 789_000_000)
            .to_zoned_datetime(time_zone.clone())
            .map_err(|error| error.to_string())?;
        let text = BrokenDownTime::from(&sample)
            .to_string(format)
            .map_err(|error| format!("format {format:?}: {error}"))?;
        let length = is_run_together(format).then_some(text.len());
        let format = format.to_owned();
        let style = Self {
            format: Format::Strptime { format, length },
            time_zone,
        };
        match style.microseconds(&text) {
            Ok(_) => Ok(style),
            Err(problem) => Err(format!("the format does not give a date: {problem}")),
        }
    }

    /// Microseconds since 1970-01-01 UTC.
    pub(super) fn microseconds(&self, text: &str) -> Result<i64, String> {
        let time = match &self.format {
            Format::Rfc3339 => text.parse::<Timestamp>(),
            Format::Strptime {
                format,
                length: Some(length),
            } if text.len() != *length => {
                return Err(format!(
                    "{text:?} does not have the {length} characters of {format:?}"
                ));
            }
            Format::Strptime { format, .. } => {
                BrokenDownTime::parse(format, text).and_then(|time| self.timestamp(&time))
            }
        };
        time.map(Timestamp::as_microsecond)
            .map_err(|error| format!("{text:?}: {error}"))
    }

    fn timestamp(&self, time: &BrokenDownTime) -> Result<Timestamp, jiff::Error> {
        if time.iana_time_zone().is_some() {
            time.to_zoned_datetime().map(|zoned| zoned.timestamp())
        } else if time.offset().is_some() || time.timestamp().is_some() {
            time.to_timestamp()
        } else {
            self.time_zone.to_timestamp(time.to_datetime()?)
        }
    }
}

/// Whether the format has only numbers of fixed width, two of them with nothing in between.
fn is_run_together(format: &str) -> bool {
    let numbers = |part: &str| part.starts_with(['Y', 'y', 'm', 'd', 'j', 'H', 'M', 'S']);
    let parts: Vec<_> = format.split('%').skip(1).collect();
    let (_, before_last) = parts.split_last().unwrap_or((&"", &[]));
    parts.iter().all(|part| numbers(part)) && before_last.iter().any(|part| part.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_times() {
        for (format, zone, text, expected) in [
            ("%y%m%d", "UTC", "930101", "1993-01-01T00:00:00Z"),
            ("%y%m%d", "UTC", "690101", "1969-01-01T00:00:00Z"),
            ("%y%m%d", "UTC", "681231", "2068-12-31T00:00:00Z"),
            ("%y%m%d", "UTC", "000229", "2000-02-29T00:00:00Z"),
            (
                "%Y%m%d%H%M%S",
                "UTC",
                "20240229235959",
                "2024-02-29T23:59:59Z",
            ),
            ("%Y-%m-%d", "UTC", "2024-02-29", "2024-02-29T00:00:00Z"),
            ("%d.%m.%Y", "UTC", "1.3.2024", "2024-03-01T00:00:00Z"),
            (
                "%d.%m.%Y %H:%M",
                "Europe/Prague",
                "01.07.2024 00:30",
                "2024-06-30T22:30:00Z",
            ),
            ("%d%b%y", "UTC", "01JAN93", "1993-01-01T00:00:00Z"),
            (
                "%Y-%m-%d %H:%M:%S%.f",
                "UTC",
                "2024-01-02 03:04:05.1234567",
                "2024-01-02T03:04:05.123456Z",
            ),
            (
                "%Y-%m-%dT%H:%M:%S%:z",
                "Europe/Prague",
                "2024-01-02T03:04:05-05:00",
                "2024-01-02T08:04:05Z",
            ),
            ("%s", "UTC", "86400", "1970-01-02T00:00:00Z"),
            (
                "rfc3339",
                "UTC",
                "2024-01-02T03:04:05+01:00",
                "2024-01-02T02:04:05Z",
            ),
            // Clocks go back from 03:00 to 02:00, and forward from 02:00 to 03:00.
            (
                "%Y-%m-%d %H:%M",
                "Europe/Prague",
                "2024-10-27 02:30",
                "2024-10-27T00:30:00Z",
            ),
            (
                "%Y-%m-%d %H:%M",
                "Europe/Prague",
                "2024-03-31 02:30",
                "2024-03-31T01:30:00Z",
            ),
        ] {
            let style = TimeStyle::new(format, zone).unwrap();
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(
                style.microseconds(text),
                Ok(expected.as_microsecond()),
                "{format} {text}"
            );
        }
    }

    #[test]
    fn bad_times() {
        for (format, text) in [
            ("%y%m%d", ""),
            ("%y%m%d", "93101"),
            ("%y%m%d", "9301011"),
            ("%y%m%d", "930229"),
            ("%y%m%d", "931301"),
            ("%y%m%d", "93-1-1"),
            ("%y%m%d", " 93010"),
            ("%Y-%m-%d", "2023-02-29"),
            ("%Y-%m-%d", "2023-02-28x"),
            ("%Y-%m-%d %H:%M", "2023-02-28 25:00"),
            ("rfc3339", "2024-01-02T03:04:05"),
            ("rfc3339", "2024-01-02"),
        ] {
            let style = TimeStyle::new(format, "UTC").unwrap();
            let error = style.microseconds(text).unwrap_err();
            assert!(
                error.starts_with(&format!("{text:?}")),
                "{format} {text}: {error}"
            );
        }
    }

    #[test]
    fn bad_styles() {
        for (format, zone) in [
            ("%m-%d", "UTC"),
            ("%H:%M", "UTC"),
            ("%Y-%m", "UTC"),
            ("%K", "UTC"),
            ("%Y-%m-%d %", "UTC"),
            ("%Y-%m-%d %Z", "UTC"),
            ("", "UTC"),
            ("YYYY-MM-DD", "UTC"),
            ("%Y-%m-%d", "Europe/Nowhere"),
            ("%Y-%m-%d", ""),
        ] {
            assert!(TimeStyle::new(format, zone).is_err(), "{format} {zone}");
        }
    }
}
