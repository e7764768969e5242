//! ISO 4217 currencies.

use std::fmt;

/// A currency of ISO 4217 that has minor units.
///
/// Codes without an exponent (metals, bond units, "no currency") are not money that can be moved
/// in minor units and do not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// The currency of an upper-case three-letter code.
    pub fn parse(code: &str) -> Option<Self> {
        let currency = iso_currency::Currency::from_code(code)?;
        currency.exponent().map(|_| Self(currency))
    }

    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many decimal digits the minor unit has: 2 for EUR, 0 for JPY, 3 for KWD.
    pub fn exponent(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }

    /// Every currency that parses, for the database's table of exponents.
    pub fn all() -> impl Iterator<Item = Self> {
        use iso_currency::IntoEnumIterator;
        iso_currency::Currency::iter()
            .filter(|c| c.exponent().is_some())
            .map(Self)
    }
}

impl PartialOrd for Currency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Currency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.code().cmp(other.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_exponents() {
        for (code, exponent) in [
            ("EUR", Some(2)),
            ("CZK", Some(2)),
            ("JPY", Some(0)),
            ("KWD", Some(3)),
            ("CLF", Some(4)),
        ] {
            assert_eq!(
                Currency::parse(code).map(Currency::exponent),
                exponent,
                "{code}"
            );
        }
        for bad in ["", "eur", "EURO", "EU", "XAU", "XXX", "ZZZ", "E\u{0}R"] {
            assert_eq!(Currency::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_currencies_parse_and_differ() {
        let mut codes: Vec<_> = Currency::all().map(Currency::code).collect();
        assert!(codes.len() > 150, "{}", codes.len());
        assert!(codes.iter().all(|code| Currency::parse(code).is_some()));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Currency::all().count());
    }
}
