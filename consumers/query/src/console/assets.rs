//! Style, script and icon: part of the program, so that a page needs no other server.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const CSS: &str = include_str!("console.css");
const JS: &str = include_str!("console.js");
const ICON: &str = include_str!("favicon.svg");

/// The version in the address changes with the content: what is under an address never changes.
const KEEP: &str = "public, max-age=31536000, immutable";
/// The icon has an address that browsers guess.
const KEEP_A_DAY: &str = "public, max-age=86400";

/// Tells one build's assets from another's.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    (CSS, JS, ICON).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// Their routes.
pub fn router() -> Router {
    Router::new()
        .route(
            "/assets/console.css",
            asset(CSS, "text/css; charset=utf-8", KEEP),
        )
        .route(
            "/assets/console.js",
            asset(JS, "text/javascript; charset=utf-8", KEEP),
        )
        .route("/favicon.svg", asset(ICON, "image/svg+xml", KEEP_A_DAY))
}

fn asset(
    text: &'static str,
    content_type: &'static str,
    keep: &'static str,
) -> axum::routing::MethodRouter {
    get(async move |headers: HeaderMap| answer(&headers, text, content_type, keep))
}

fn answer(
    headers: &HeaderMap,
    text: &'static str,
    content_type: &'static str,
    keep: &'static str,
) -> Response {
    let tag = format!("\"{}\"", *VERSION);
    let known = headers.get(header::IF_NONE_MATCH);
    let is_known = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let answer = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, keep),
        (header::ETAG, tag.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, answer).into_response()
    } else {
        (answer, text).into_response()
    }
}
