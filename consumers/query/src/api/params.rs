//! Parameters: each checked, unknown and repeated ones refused.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use millrace_http::Problem;
use utoipa::IntoParams;

use crate::freshness::{AtLeast, WAIT_DEFAULT_MS, WAIT_MAX_MS};

/// How many rows an answer has where the request does not say.
pub const LIMIT_DEFAULT: u32 = 100;

/// A wrong parameter: its name and what would be right.
pub fn wrong(code: &'static str, name: &str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail).field(name.to_owned())
}

/// Parameters that every question has.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the parameters; they are read by hand to refuse others"
)]
pub struct Waiting {
    /// Wait until this PARTITION:OFFSET of a receipt is applied; several separated by commas.
    #[param(
        pattern = "^[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18}){0,63}$",
        example = "3:17",
        nullable = false
    )]
    at_least: Option<String>,
    /// How long to wait at most, milliseconds.
    #[param(minimum = 0, maximum = 10_000, default = 2_000, nullable = false)]
    wait_ms: Option<u32>,
}

/// The parameters of a request, taken out one by one.
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// A parameter that comes twice is an error.
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        let invalid = || {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_query",
                "the query is not percent-encoded UTF-8",
            )
        };
        let pairs: axum::extract::Query<Vec<(String, String)>> =
            axum::extract::Query::try_from_uri(uri).map_err(|_| invalid())?;
        let mut all = BTreeMap::new();
        for (name, value) in pairs.0 {
            // What decodes the query puts this where bytes are not UTF-8, without an error.
            if [&name, &value]
                .iter()
                .any(|text| text.contains(char::REPLACEMENT_CHARACTER))
            {
                return Err(invalid());
            }
            if all.contains_key(&name) {
                return Err(wrong(
                    "repeated_parameter",
                    &shown(&name),
                    "the parameter comes twice",
                ));
            }
            all.insert(name, value);
        }
        Ok(Self(all))
    }

    /// The text of a parameter.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// How many rows.
    pub fn limit(&mut self, max: u32) -> Result<u32, Problem> {
        self.number("limit", LIMIT_DEFAULT.min(max), 1, max)
    }

    /// What to wait for, and how long.
    pub fn waiting(&mut self) -> Result<Option<(AtLeast, Duration)>, Problem> {
        let wait_ms = self.number("wait_ms", WAIT_DEFAULT_MS, 0, WAIT_MAX_MS)?;
        let at_least = self.take("at_least").map(|text| AtLeast::parse(&text));
        let wait = Duration::from_millis(wait_ms.into());
        Ok(at_least.transpose()?.map(|at_least| (at_least, wait)))
    }

    fn number(&mut self, name: &str, default: u32, min: u32, max: u32) -> Result<u32, Problem> {
        let Some(text) = self.take(name) else {
            return Ok(default);
        };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text
            .parse()
            .ok()
            .filter(|n| digits && (min..=max).contains(n));
        number.ok_or_else(|| {
            wrong(
                "invalid_parameter",
                name,
                format!("{name} is a whole number from {min} to {max}"),
            )
        })
    }

    /// An error when something is left that nobody has taken.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                let name = shown(&name);
                let detail = format!(
                    "there is no parameter {name:?} here; /openapi.json tells what there is"
                );
                Err(wrong("unknown_parameter", &name, detail))
            }
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Result<Params, Problem> {
        Params::of(&format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn every_parameter_is_known_and_comes_once() {
        let mut good = params("limit=5&wait_ms=10&at_least=1:2&a=%C3%A4+b").unwrap();
        assert_eq!(good.limit(10).unwrap(), 5);
        assert!(good.waiting().unwrap().is_some());
        assert_eq!(good.take("a").unwrap(), "ä b");
        assert!(good.end().is_ok());
        assert_eq!(
            params("a=1&a=2").err().unwrap().code(),
            "repeated_parameter"
        );
        assert_eq!(
            params("a=1").unwrap().end().unwrap_err().code(),
            "unknown_parameter"
        );
        for bad in ["a=%ff", "%C3=1", "a=%ED%A0%80"] {
            assert_eq!(params(bad).err().unwrap().code(), "invalid_query");
        }
        for bad in ["0", "11", "-1", "+5", "1.0", "", "x", "99999999999"] {
            let mut bad = params(&format!("limit={bad}")).unwrap();
            assert_eq!(bad.limit(10).unwrap_err().code(), "invalid_parameter");
        }
    }
}
