//! Numbers, amounts, times and addresses as text for people.

use std::time::Duration;

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A true minus sign: as wide as a plus, and never broken from its number.
const MINUS: &str = "\u{2212}";

/// `1,234,567`.
pub fn number(value: impl Into<i128>) -> String {
    let value = value.into();
    let sign = if value < 0 { MINUS } else { "" };
    format!("{sign}{}", grouped(&value.unsigned_abs().to_string()))
}

/// Minor units as the currency is written: `−1,234.50`. Without an exponent they stay minor units.
pub fn amount(minor: i128, exponent: Option<i32>) -> String {
    let sign = if minor < 0 { MINUS } else { "" };
    let places = usize::try_from(exponent.unwrap_or(0)).unwrap_or(0);
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let point = if places > 0 { "." } else { "" };
    format!("{sign}{}{point}{fraction}", grouped(whole))
}

/// The same with a plus where it is above zero.
pub fn signed_amount(minor: i128, exponent: Option<i32>) -> String {
    let plus = if minor > 0 { "+" } else { "" };
    format!("{plus}{}", amount(minor, exponent))
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn age(seconds: f64) -> String {
    let Ok(whole) = Duration::try_from_secs_f64(seconds.max(0.0)) else {
        return "unknown".into();
    };
    match whole.as_secs() {
        0 if whole.as_millis() == 0 => "0 s".into(),
        0..10 => format!("{seconds:.1} s"),
        s @ 10..60 => format!("{s} s"),
        s @ 60..3_600 => format!("{} min {} s", s / 60, s % 60),
        s @ 3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Milliseconds the same way, exact below a second.
pub fn staleness(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ => age(Duration::from_millis(ms).as_secs_f64()),
    }
}

/// `2026-01-31 12:00:00` of RFC 3339 in UTC; the exact time stays with the element.
pub fn time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) title=(rfc3339) { (clock(rfc3339, 19)) } }
}

/// The time of day only, for what has just happened.
pub fn time_of_day(rfc3339: &str) -> Markup {
    let text = clock(rfc3339, 19);
    let of_day = text.split_once(' ').map_or(text.as_str(), |(_, time)| time);
    html! { time datetime=(rfc3339) title=(rfc3339) { (of_day) } }
}

/// To the microsecond.
pub fn exact_time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) { (clock(rfc3339, 26)) " UTC" } }
}

fn clock(rfc3339: &str, len: usize) -> String {
    let text: String = rfc3339.chars().take(len).collect();
    text.trim_end_matches('Z').replace('T', " ")
}

/// `insufficient_funds` as `insufficient funds`.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A part of a path or a value of a query, percent-encoded.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The address of an account's page.
pub fn account_path(account: &str) -> String {
    format!("/accounts/{}", encoded(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_currencys_places() {
        for (minor, exponent, shown) in [
            (0, Some(2), "0.00"),
            (5, Some(2), "0.05"),
            (-5, Some(2), "−0.05"),
            (123_456, Some(2), "1,234.56"),
            (100, Some(0), "100"),
            (-1_234_567, Some(0), "−1,234,567"),
            (1_500, Some(3), "1.500"),
            (999, Some(3), "0.999"),
            (12_345, Some(4), "1.2345"),
            (1, Some(4), "0.0001"),
            (1_000, None, "1,000"),
        ] {
            assert_eq!(amount(minor, exponent), shown);
        }
        assert_eq!(
            amount(i128::MAX, Some(2)),
            "1,701,411,834,604,692,317,316,873,037,158,841,057.27"
        );
        assert_eq!(
            amount(i128::MIN, Some(0)),
            "−170,141,183,460,469,231,731,687,303,715,884,105,728"
        );
        assert_eq!(signed_amount(5, Some(2)), "+0.05");
        assert_eq!(signed_amount(-5, Some(2)), "−0.05");
        assert_eq!(signed_amount(0, Some(2)), "0.00");
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_000, "−1,000")] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, shown) in [
            (0.0, "0 s"),
            (-3.0, "0 s"),
            (0.42, "0.4 s"),
            (42.9, "42 s"),
            (185.0, "3 min 5 s"),
            (7_800.0, "2 h 10 min"),
            (356_400.0, "4 d 3 h"),
            (f64::NAN, "0 s"),
            (f64::INFINITY, "unknown"),
        ] {
            assert_eq!(age(seconds), shown, "{seconds}");
        }
        assert_eq!(staleness(999), "999 ms");
        assert_eq!(staleness(61_000), "1 min 1 s");
    }

    #[test]
    fn addresses_are_encoded_and_times_are_short() {
        assert_eq!(account_path("external:a.b"), "/accounts/external%3Aa.b");
        assert_eq!(encoded("ä/?&"), "%C3%A4%2F%3F%26");
        assert_eq!(
            clock("2026-01-31T12:00:00.000001Z", 19),
            "2026-01-31 12:00:00"
        );
        assert_eq!(clock("2026-01-31T12:00:00Z", 26), "2026-01-31 12:00:00");
    }
}
