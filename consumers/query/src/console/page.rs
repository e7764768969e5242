//! The frame around every page, its headers, and errors as pages.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use millrace_http::Problem;

use crate::Query;
use crate::console::{assets, text};
use crate::database::Error;
use crate::freshness::AsOf;

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The first page.
    Overview,
    /// Refused and rejected records.
    Rejections,
    /// Parked records.
    Parked,
    /// Not in the navigation.
    Elsewhere,
}

const NAVIGATION: [(Place, &str, &str); 3] = [
    (Place::Overview, "/", "Overview"),
    (Place::Rejections, "/rejections", "Rejections"),
    (Place::Parked, "/parked", "Parked"),
];

/// A page before it is framed.
#[derive(Debug)]
pub struct Page {
    /// The status of the answer.
    pub status: StatusCode,
    /// The title, without the product's name.
    pub title: String,
    /// Where it stands.
    pub place: Place,
    /// How fresh it is.
    pub as_of: AsOf,
    /// What was searched for, to be searched on.
    pub searched: String,
    /// The content of `main`, beginning with its `h1`.
    pub body: Markup,
}

impl Page {
    /// A page that went well.
    pub fn new(title: impl Into<String>, place: Place, as_of: AsOf, body: Markup) -> Self {
        Self {
            status: StatusCode::OK,
            title: title.into(),
            place,
            as_of,
            searched: String::new(),
            body,
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = (self.status, framed(&self)).into_response();
        let headers = response.headers_mut();
        self.as_of.stamp(headers);
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Why there is no page, shown as one.
#[derive(Debug)]
pub struct Failed(Box<Problem>);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(Box::new(error.into_problem()))
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let status = problem.status();
        let title = headline(status);
        let lead = format!("{}.", capitalised(problem.detail()));
        let body = message(status, problem.code(), &lead);
        let page = Page::new(title, Place::Elsewhere, AsOf::default(), body).status(status);
        // The problem's own answer knows its headers, such as Retry-After.
        let retry_after = problem
            .into_response()
            .headers_mut()
            .remove(header::RETRY_AFTER);
        let mut response = page.into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

fn message(status: StatusCode, code: &str, lead: &str) -> Markup {
    html! {
        div.message #message data-live {
            h1 { (headline(status)) }
            p.lead { (lead) }
            p { a.button href="/" { "To the overview" } }
            p.code { (status.as_u16()) " " (code) }
        }
    }
}

fn headline(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "Nothing here",
        StatusCode::SERVICE_UNAVAILABLE => "No answer right now",
        _ if status.is_client_error() => "That cannot be asked",
        _ => "Something went wrong",
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// Paths that no route has: a page for people, a problem for programs.
pub async fn nothing_here(
    State(query): State<Query>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let is_person = accept.is_some_and(|accept| accept.contains("text/html"))
        && matches!(method, Method::GET | Method::HEAD)
        && !uri.path().starts_with("/v1/");
    if !is_person {
        return Problem::not_found(uri.path()).into_response();
    }
    let as_of = query.freshness.as_of(None).await.unwrap_or_default();
    let status = StatusCode::NOT_FOUND;
    let body = message(status, "not_found", "There is no page at this address.");
    Page::new(headline(status), Place::Elsewhere, as_of, body)
        .status(status)
        .into_response()
}

fn framed(page: &Page) -> Markup {
    let version = assets::VERSION.as_str();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · Millrace" }
                link rel="icon" href="/favicon.svg" type="image/svg+xml";
                link rel="stylesheet" href={ "/assets/console.css?v=" (version) };
                script src={ "/assets/console.js?v=" (version) } defer {}
            }
            body data-status=(page.status.as_u16()) {
                a.skip href="#main" { "Skip to the content" }
                p #away role="alert" hidden {}
                (head(page))
                main #main tabindex="-1" { (page.body) }
                footer.foot {
                    p #freshness data-live { (fresh(page.as_of)) }
                    p.actions {
                        button #live type="button" hidden aria-pressed="true" { "Live" }
                        a href="/openapi.json" { "API document" }
                    }
                }
            }
        }
    }
}

fn head(page: &Page) -> Markup {
    html! {
        header.head {
            div.bar {
                a.brand href="/" {
                    svg.mark viewBox="0 0 32 32" aria-hidden="true" {
                        path d="M4 10c4-3.500 8-3.500 12 0s8 3.500 12 0M4 16c4-3.500 8-3.500 12 0s8 3.500 12 0M4 22c4-3.500 8-3.500 12 0s8 3.500 12 0" {}
                    }
                    "Millrace"
                }
                nav aria-label="Pages" {
                    ul {
                        @for (place, path, name) in NAVIGATION {
                            li {
                                a href=(path) aria-current=[(place == page.place).then_some("page")] { (name) }
                            }
                        }
                    }
                }
                form.search action="/search" method="get" role="search" {
                    label.hidden for="q" { "Transaction id or account" }
                    input #q type="search" name="q" value=(page.searched) maxlength="200" autocomplete="off"
                        spellcheck="false" autocapitalize="off" placeholder="Transaction id or account";
                    button type="submit" { "Find" }
                }
            }
        }
    }
}

fn fresh(as_of: AsOf) -> Markup {
    html! {
        @match as_of.time().zip(as_of.staleness_ms()) {
            Some((time, ms)) => {
                "As of " (text::time(&time.to_string())) " UTC, "
                span.figure { (text::staleness(ms)) } " ago: everything that came into the log before is shown."
            }
            None => "How fresh this is is unknown: no owner of a partition reports.",
        }
    }
}
