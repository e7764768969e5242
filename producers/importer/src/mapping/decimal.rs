//! Decimal text to minor units, exactly.

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// Between the whole and the fraction.
    pub(super) decimal: char,
    /// Between groups of three digits, where there is one.
    pub(super) thousands: Option<char>,
}

/// The number times 10^`exponent`. Digits beyond the exponent must be zeros, thousands separators
/// must stand where they belong: `1,5` is not read as 15.
pub(super) fn minor_units(text: &str, style: Style, exponent: u32) -> Result<i64, String> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let (whole, fraction) = match digits.split_once(style.decimal) {
        Some((_, "")) => return Err(not_a_number(text)),
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(not_a_number(text));
    }
    let mut number = Number(0);
    match style.thousands {
        Some(separator) if whole.contains(separator) => {
            for (i, group) in whole.split(separator).enumerate() {
                let length_fits = group.len() == 3 || (i == 0 && (1..3).contains(&group.len()));
                if !length_fits {
                    return Err(format!("{text:?} has {separator:?} in a wrong place"));
                }
                number.push(group, text)?;
            }
        }
        _ => number.push(whole, text)?,
    }
    number.push_fraction(fraction, text, exponent)?;
    Ok(sign * number.0)
}

/// A number that grows digit by digit, never below 0.
struct Number(i64);

impl Number {
    fn push(&mut self, digits: &str, text: &str) -> Result<(), String> {
        for digit in digits.bytes() {
            if !digit.is_ascii_digit() {
                return Err(not_a_number(text));
            }
            let next = self.0.checked_mul(10);
            let next = next.and_then(|n| n.checked_add(i64::from(digit - b'0')));
            self.0 = next.ok_or_else(|| format!("{text:?} is too large"))?;
        }
        Ok(())
    }

    fn push_fraction(&mut self, digits: &str, text: &str, exponent: u32) -> Result<(), String> {
        let places = exponent as usize;
        let (kept, beyond) = digits.split_at_checked(places).unwrap_or((digits, ""));
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(not_a_number(text));
        }
        if beyond.bytes().any(|b| b != b'0') {
            return Err(format!("{text:?} has more than {exponent} decimals"));
        }
        self.push(kept, text)?;
        for _ in kept.len()..places {
            self.push("0", text)?;
        }
        Ok(())
    }
}

fn not_a_number(text: &str) -> String {
    format!("{text:?} is not a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POINT: Style = Style {
        decimal: '.',
        thousands: None,
    };
    const ENGLISH: Style = Style {
        decimal: '.',
        thousands: Some(','),
    };
    const CZECH: Style = Style {
        decimal: ',',
        thousands: Some('\u{a0}'),
    };

    #[test]
    fn good_numbers() {
        for (text, style, exponent, minor) in [
            ("700.00", POINT, 2, 70_000),
            ("0.80", POINT, 2, 80),
            ("0.8", POINT, 2, 80),
            (".8", POINT, 2, 80),
            ("7", POINT, 2, 700),
            ("7", POINT, 0, 7),
            ("7.00", POINT, 0, 7),
            ("7.125", POINT, 3, 7_125),
            ("7.1200000", POINT, 2, 712),
            ("007.10", POINT, 2, 710),
            ("-1.50", POINT, 2, -150),
            ("+1.50", POINT, 2, 150),
            ("0", POINT, 2, 0),
            ("1,234,567.89", ENGLISH, 2, 123_456_789),
            ("1234567.89", ENGLISH, 2, 123_456_789),
            ("123,456", ENGLISH, 0, 123_456),
            ("1\u{a0}234,5", CZECH, 2, 123_450),
            ("92233720368547758.07", POINT, 2, i64::MAX),
        ] {
            assert_eq!(minor_units(text, style, exponent), Ok(minor), "{text}");
        }
    }

    #[test]
    fn bad_numbers() {
        for (text, style, exponent, problem) in [
            ("", POINT, 2, "not a number"),
            ("-", POINT, 2, "not a number"),
            (".", POINT, 2, "not a number"),
            ("5.", POINT, 2, "not a number"),
            ("1.2.3", POINT, 2, "not a number"),
            ("--1", POINT, 2, "not a number"),
            ("1e3", POINT, 2, "not a number"),
            ("0x10", POINT, 2, "not a number"),
            ("NaN", POINT, 2, "not a number"),
            ("1 000", POINT, 2, "not a number"),
            ("1,50", POINT, 2, "not a number"),
            ("1.5€", POINT, 2, "not a number"),
            ("1.€€", POINT, 2, "not a number"),
            ("٣", POINT, 2, "not a number"),
            ("1.234", POINT, 2, "more than 2 decimals"),
            ("1.5", POINT, 0, "more than 0 decimals"),
            ("1,5", ENGLISH, 2, "in a wrong place"),
            ("1,2345", ENGLISH, 2, "in a wrong place"),
            (",123", ENGLISH, 2, "in a wrong place"),
            ("1,,234", ENGLISH, 2, "in a wrong place"),
            ("1.123,456", ENGLISH, 6, "not a number"),
            ("1.234,50", CZECH, 2, "not a number"),
            ("92233720368547758.08", POINT, 2, "too large"),
            ("99999999999999999999999999", POINT, 2, "too large"),
        ] {
            let error = minor_units(text, style, exponent).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    /// The number in decimal text, by integers alone.
    fn formatted(minor: i64, style: Style, exponent: u32) -> String {
        let scale = 10_u64.pow(exponent);
        let (whole, fraction) = (minor.unsigned_abs() / scale, minor.unsigned_abs() % scale);
        let mut text = whole.to_string();
        if let Some(separator) = style.thousands {
            for at in (1..text.len())
                .rev()
                .filter(|at| (text.len() - at) % 3 == 0)
                .collect::<Vec<_>>()
            {
                text.insert(at, separator);
            }
        }
        if exponent > 0 {
            text = format!("{text}{}{fraction:0>1$}", style.decimal, exponent as usize);
        }
        if minor < 0 { format!("-{text}") } else { text }
    }

    proptest! {
        #[test]
        fn formatted_numbers_are_read_back(minor in -i64::MAX..=i64::MAX, exponent in 0_u32..=4) {
            for style in [POINT, ENGLISH, CZECH] {
                let text = formatted(minor, style, exponent);
                prop_assert_eq!(minor_units(&text, style, exponent), Ok(minor), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", exponent in 0_u32..=4) {
            for style in [POINT, ENGLISH, CZECH] {
                let _ = minor_units(&text, style, exponent);
            }
        }
    }
}
