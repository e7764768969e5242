//! The read models against a real Postgres: `DATABASE_URL` names a server, each test has a database
//! of its own there.
#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up fails the test"
)]

mod inline;
mod ledger;
mod reports;
mod roles;
mod scratch;
mod verify;
mod workers;
