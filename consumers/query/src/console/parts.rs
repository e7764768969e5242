//! Pieces that several pages show.

use maud::{Markup, html};
use millrace_http::Problem;

use crate::console::text;
use crate::reports::Report;
use crate::reports::query::Row;
use crate::store::overview::ByReason;

/// An account as a link to its page.
pub fn account(account: &str) -> Markup {
    html! { a.id href=(text::account_path(account)) { (account) } }
}

/// From where to where; on two lines where one is too short.
pub fn parties(debit: &str, credit: &str) -> Markup {
    html! { span.party { (account(debit)) } " " span.party { "→ " (account(credit)) } }
}

/// A transaction as a link to its page; in full, since it is read out and compared.
pub fn transaction(id: impl std::fmt::Display) -> Markup {
    html! { a.id href={ "/transactions/" (id) } { (id) } }
}

/// An amount with its currency.
pub fn money(minor: i128, exponent: Option<i32>, currency: &str) -> Markup {
    html! {
        span.money { (text::amount(minor, exponent)) " " span.currency { (currency) } }
    }
}

/// Why a part of a page is not shown while the rest is.
pub fn missing(problem: &Problem) -> Markup {
    html! {
        p.notice role="note" {
            "Not shown: " (problem.detail()) ". " span.code { (problem.code()) }
        }
    }
}

/// The part, or why it is missing.
pub fn or_missing<T>(part: &Result<T, Problem>, show: impl FnOnce(&T) -> Markup) -> Markup {
    match part {
        Ok(value) => show(value),
        Err(problem) => missing(problem),
    }
}

/// A wide table's frame: on a narrow screen it scrolls by itself, also by keyboard.
pub fn scrolling(label: &str, table: &Markup) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" { (table) }
    }
}

/// The name of a column, and on which side its cells are.
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Figures.
    Right(&'static str),
}

/// The head of a table.
pub fn heads(columns: &[Column]) -> Markup {
    html! {
        thead {
            tr {
                @for column in columns {
                    @match column {
                        Column::Left(name) => th scope="col" { (name) },
                        Column::Right(name) => th.right scope="col" { (name) },
                    }
                }
            }
        }
    }
}

/// A value for which a dash stands where there is none.
pub fn or_dash(value: Option<Markup>) -> Markup {
    value.unwrap_or_else(|| html! { span.quiet aria-label="none" role="img" { "–" } })
}

/// A link to the next page of a list.
pub fn next_page(next: Option<&str>, href: impl FnOnce(String) -> String) -> Markup {
    html! {
        @if let Some(next) = next {
            nav.pages aria-label="Further pages" {
                a.button rel="next" href=(href(text::encoded(next))) { "Older" }
            }
        }
    }
}

/// Counts by reason as links that filter; `path` has everything but the reason.
pub fn reasons(label: &str, path: &str, chosen: Option<&str>, all: &[ByReason]) -> Markup {
    let join = if path.contains('?') { '&' } else { '?' };
    let total: i64 = all.iter().map(|reason| reason.count).sum();
    html! {
        nav.chips aria-label=(label) {
            ul {
                li {
                    a href=(path) aria-current=[chosen.is_none().then_some("true")] {
                        "All " span.figure { (text::number(total)) }
                    }
                }
                @for reason in all {
                    li {
                        a href={ (path) (join) "reason=" (text::encoded(&reason.reason)) }
                            aria-current=[(chosen == Some(reason.reason.as_str())).then_some("true")] {
                            (text::words(&reason.reason)) " " span.figure { (text::number(reason.count)) }
                        }
                    }
                }
            }
        }
    }
}

/// The columns of a report's row by name.
#[derive(Clone, Copy)]
pub struct Cells<'a>(pub &'a Report, pub &'a Row);

impl<'a> Cells<'a> {
    /// The text of a column; none where it is null.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let index = self
            .0
            .columns
            .iter()
            .position(|column| column.name == name)?;
        self.1.get(index)?.as_deref()
    }

    /// The text of a column that is never null.
    pub fn text(self, name: &str) -> &'a str {
        self.get(name).unwrap_or_default()
    }

    /// A whole number as text.
    pub fn number(self, name: &str) -> Option<i128> {
        self.get(name)?.parse().ok()
    }

    /// The amount with its currency, as far as they could be read.
    pub fn money(self) -> Option<Markup> {
        let exponent = self.get("exponent").and_then(|text| text.parse().ok());
        let currency = self.get("currency").unwrap_or("?");
        self.number("amount")
            .map(|minor| money(minor, exponent, currency))
    }
}
