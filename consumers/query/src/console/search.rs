//! `GET /search`: to the transaction or account that is meant, else what there is to choose from.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use millrace_rules::AccountId;
use uuid::Uuid;

use crate::Query;
use crate::api::params::Params;
use crate::console::page::{Failed, Page, Place};
use crate::console::{parts, text};
use crate::store::accounts::{balances, beginning_with};

/// How many accounts are offered.
const FOUND_MAX: i64 = 100;
/// The longest account id.
const ACCOUNT_CHARS_MAX: usize = 64;

/// The page, or where to go.
pub async fn show(State(query): State<Query>, uri: Uri) -> Result<Response, Failed> {
    let mut params = Params::of(&uri)?;
    let sought = params.take("q").unwrap_or_default();
    params.end()?;
    let sought: String = sought.trim().chars().take(200).collect();
    if let Ok(id) = sought.parse::<Uuid>() {
        return Ok(Redirect::to(&format!("/transactions/{id}")).into_response());
    }
    let as_of = query.freshness.as_of(None).await?;
    if AccountId::parse(sought.as_str().into()).is_ok()
        && !balances(&query.pools.by_key, &sought).await?.is_empty()
    {
        return Ok(Redirect::to(&text::account_path(&sought)).into_response());
    }
    let found = if can_begin_an_account(&sought) {
        beginning_with(&query.pools.any, &sought, FOUND_MAX).await?
    } else {
        Vec::new()
    };
    let body = results(&sought, &found);
    let mut page = Page::new("Search", Place::Elsewhere, as_of, body);
    page.searched = sought;
    Ok(page.into_response())
}

fn can_begin_an_account(text: &str) -> bool {
    !text.is_empty() && text.len() <= ACCOUNT_CHARS_MAX && AccountId::parse(text.into()).is_ok()
}

fn results(sought: &str, found: &[String]) -> Markup {
    let more = i64::try_from(found.len()).is_ok_and(|count| count >= FOUND_MAX);
    html! {
        h1 { "Search" }
        @if found.is_empty() {
            div.empty {
                @if sought.is_empty() {
                    p.lead { "What are you looking for?" }
                } @else {
                    p.lead { "Nothing is found for " q { (sought) } "." }
                }
                p { "The search finds:" }
                ul {
                    li { "a transaction by its whole id, such as " code { "0198f2a4-7c1e-7d3a-9b5f-2e8c6a1d4f70" } }
                    li { "an account by its id or how it begins, such as " code { "external:" } }
                }
                p.quiet { "What was sent a moment ago may not be applied yet; the foot of the page says as of when this is." }
            }
        } @else {
            p.lead {
                @if more { "The first " (found.len()) } @else { (found.len()) }
                " accounts that begin with " q { (sought) }
            }
            ul.accounts {
                @for account in found { li { (parts::account(account)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_escaped() {
        let shown = results("<script>", &[]).into_string();
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>"));
    }
}
