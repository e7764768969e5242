//! The pages for people.

use axum::Router;

use crate::Query;

/// What pages share.
#[derive(Debug, Clone, Default)]
pub struct Cache;

/// The pages.
pub fn router(_query: Query) -> Router {
    Router::new()
}
