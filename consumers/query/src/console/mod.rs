//! The pages for people: rendered here, complete without a script.
//!
//! | module | holds |
//! |---|---|
//! | [`page`] | the frame around every page, its headers, errors as pages |
//! | [`text`] | numbers, amounts, times and addresses as text |
//! | [`parts`] | pieces that several pages show |
//! | [`bytes`] | bytes of unknown content, shown safely |
//! | [`cache`] | what is dear to read, read once for all |
//! | [`chart`] | drawings |
//! | [`assets`] | style, script and icon |
//! | the others | a page each |

mod account;
mod assets;
mod bytes;
mod cache;
mod chart;
mod overview;
mod page;
mod parked;
mod parts;
mod rejections;
mod search;
mod text;
mod transaction;

use axum::Router;
use axum::routing::{any, get};

pub use self::cache::Cache;
use crate::Query;

/// The pages.
pub fn router(query: Query) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/search", get(search::show))
        .route("/transactions/{id}", get(transaction::show))
        .route("/accounts/{account}", get(account::show))
        .route("/rejections", get(rejections::show))
        .route("/parked", get(parked::show))
        .route("/{*path}", any(page::nothing_here))
        .with_state(query)
        .merge(assets::router())
}
