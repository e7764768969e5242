//! A database behind the simulation: in memory, or Postgres.

use std::rc::Rc;

use millrace_ledger::store::positions::{Acceptance, Found};
use millrace_ledger::store::{Error, Store};
use millrace_rules::{Currency, Limit, Status};

use crate::oracle::Oracle;

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct PolicyChange {
    /// The account; none is all others.
    pub account: Option<Rc<str>>,
    /// What is set for it.
    pub policy: Policy,
}

/// A policy of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// How far its balance may go below zero, in one currency or in all.
    Limit(Option<Currency>, Limit),
    /// What it may do.
    Status(Status),
}

/// A database. Locks that would block are decided before it is asked, so that it never does.
#[expect(async_fn_in_trait, reason = "a simulation runs on one thread")]
pub trait Backend {
    /// One connection.
    type Store: Store;

    /// Opens a connection when it is used.
    fn connect(&self, session: u64) -> Self::Store;

    /// Ends a connection from the server's side; returns when its locks are gone.
    async fn end(&self, session: u64) -> Result<(), Error>;

    /// Sets a policy and bumps the policy versions that it concerns.
    async fn set_policy(&self, change: &PolicyChange) -> Result<(), Error>;

    /// From now on the rows that it refused are taken.
    async fn mend(&self) -> Result<(), Error>;

    /// A partition's position, where it has one.
    async fn position(&self, partition: i32) -> Result<Option<Found>, Error>;

    /// Begins a new incarnation.
    async fn accept(&self, session: u64, acceptance: Acceptance<'_>) -> Result<(), Error>;

    /// Whether the database can be taken back to an older state.
    fn can_go_back(&self) -> bool;

    /// Keeps the state to go back to.
    fn keep(&self);

    /// Goes back to it.
    fn go_back(&self);

    /// Compares everything that is stored with what the oracle saw committed.
    async fn compare(&self, oracle: &Oracle) -> Result<(), String>;
}
