//! What the headers say: media type, encoding, `Idempotency-Key`.

use axum::http::{HeaderMap, header};
use millrace_http::Problem;

use crate::answer;

/// The header that stands in for the id of a single object.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest key.
pub(crate) const KEY_CHARS_MAX: usize = 255;

/// How the items are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// One object, with a key perhaps, or an array.
    Json { key: Option<&'a str> },
    /// One object per line.
    Ndjson,
}

impl<'a> Form<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Self, Problem> {
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if !encodings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(answer::unsupported("a body with a content encoding"));
        }
        let key = idempotency_key(headers)?;
        let value = headers.get(header::CONTENT_TYPE);
        let value = value.map(|value| value.to_str().unwrap_or_default());
        let essence = value
            .and_then(|value| value.split(';').next())
            .map(str::trim);
        match (essence.map(str::to_ascii_lowercase).as_deref(), key) {
            (Some("application/json"), key) => Ok(Self::Json { key }),
            (Some("application/x-ndjson" | "application/ndjson"), None) => Ok(Self::Ndjson),
            (Some("application/x-ndjson" | "application/ndjson"), Some(_)) => {
                Err(answer::key_not_allowed())
            }
            (None, _) => Err(answer::unsupported("a body without a Content-Type")),
            (Some(_), _) => Err(answer::unsupported("this Content-Type")),
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else {
        return Ok(None);
    };
    let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    let is_key = second.is_none() && is_visible && (1..=KEY_CHARS_MAX).contains(&value.len());
    match value.to_str() {
        Ok(key) if is_key => Ok(Some(key)),
        _ => Err(answer::invalid_key()),
    }
}
