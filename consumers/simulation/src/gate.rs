//! The store as a lane sees it: turns, faults and locks in front of a database.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use millrace_ledger::kafka::log::Topic;
use millrace_ledger::parking::Selection;
use millrace_ledger::pipeline::outcome::Outcome;
use millrace_ledger::store::{
    Attached, Error, LockWait, OpenParked, PartitionStatus, Policies, Position, Store,
};
use millrace_rules::Currency;
use rand::RngExt as _;

use crate::backend::Backend;
use crate::fault::Fault;
use crate::rows::Rows;
use crate::sessions::{Known, Sessions};
use crate::trace::{NONE, Who};
use crate::world::{Handle, MILLI, Micros, SECOND, State, What};

/// Lock timeouts, as the ledger sets them.
const LOCK_TIMEOUT: Micros = 500 * MILLI;
const LOCK_TIMEOUT_SHORT: Micros = 200 * MILLI;

/// How long a connection without a client stays open.
const KEEPALIVE: Micros = 25 * SECOND;

/// How long a client is silent before it is taken for frozen, and how far apart it is looked at twice.
const SILENCE_MIN: Micros = 2 * SECOND;
const LOOKS_APART: Micros = 300 * MILLI;

/// Connections whose clients are gone, or have given up.
pub(crate) type Orphans<S> = Rc<RefCell<BTreeMap<u64, S>>>;

/// One connection of a lane.
pub(crate) struct Gated<B: Backend> {
    world: Handle,
    actor: usize,
    backend: Rc<B>,
    orphans: Orphans<B::Store>,
    connection: Option<(u64, B::Store)>,
    opened: u64,
    in_transaction: bool,
}

impl<B: Backend> Gated<B> {
    pub fn new(world: &Handle, actor: usize, backend: &Rc<B>, orphans: &Orphans<B::Store>) -> Self {
        Self {
            world: Handle::clone(world),
            actor,
            backend: Rc::clone(backend),
            orphans: Rc::clone(orphans),
            connection: None,
            opened: 0,
            in_transaction: false,
        }
    }

    /// A statement reaches the server, or does not.
    async fn enter(&mut self, what: &'static str, number: i64) -> Result<u64, Error> {
        self.world.call(self.actor).await;
        let lost = {
            let mut state = self.world.state();
            let away = state.is_database_away();
            let now = state.now;
            let ended = self.connection.as_ref().is_some_and(|(session, _)| {
                let session = state.sessions.get(*session);
                session.map(|session| session.last_heard = now).is_none()
            });
            let lost = away || ended || state.strikes(Fault::ConnectionLost);
            if !lost {
                state.note(Who::Actor(self.actor), what, &[number]);
            }
            lost
        };
        if lost {
            self.lose().await?;
            return Err(Error::Unavailable(format!(
                "{what}: the connection is lost"
            )));
        }
        match &self.connection {
            Some((session, _)) => Ok(*session),
            None if self.in_transaction => Err(Error::Unavailable("no connection".into())),
            None => {
                let mut state = self.world.state();
                let now = state.now;
                let session = state.sessions.open(self.actor, now);
                self.connection = Some((session, self.backend.connect(session)));
                self.opened += 1;
                Ok(session)
            }
        }
    }

    /// A statement within a transaction.
    async fn within(&mut self, what: &'static str, number: i64) -> Result<u64, Error> {
        if self.connection.is_none() {
            return Err(Error::Unavailable("the connection is gone".into()));
        }
        let session = self.enter(what, number).await?;
        if self.world.strikes(Fault::Serialization) {
            return Err(Error::Retry("simulated".into()));
        }
        Ok(session)
    }

    /// The connection is no more, nor its transaction.
    async fn lose(&mut self) -> Result<(), Error> {
        if let Some((session, store)) = self.connection.take() {
            drop(store);
            self.backend.end(session).await?;
            self.world.state().sessions.end(session);
        }
        Ok(())
    }

    fn store(&mut self) -> &mut B::Store {
        let connection = self.connection.as_mut();
        &mut connection
            .expect("a statement has just reached the server")
            .1
    }

    /// Waits for a lock until it is there, the connection is ended, or it takes too long.
    async fn wait_for(
        &mut self,
        session: u64,
        limit: Micros,
        mut take: impl FnMut(&mut Sessions) -> bool,
    ) -> Result<(), Error> {
        let deadline = self.world.state().now + limit;
        loop {
            let after = {
                let mut state = self.world.state();
                if state.sessions.get(session).is_none() {
                    break;
                }
                if take(&mut state.sessions) {
                    return Ok(());
                }
                if state.now >= deadline {
                    return Err(Error::Locked(
                        "canceling statement due to lock timeout".into(),
                    ));
                }
                state.random.random_range(MILLI..30 * MILLI)
            };
            self.world.turn(self.actor, after).await;
        }
        self.lose().await?;
        Err(Error::Unavailable("the connection was ended".into()))
    }

    /// The client hears nothing of a commit that is done later.
    fn give_up(&mut self) {
        if let Some((session, store)) = self.connection.take() {
            self.orphans.borrow_mut().insert(session, store);
            let mut state = self.world.state();
            let after = state.random.random_range(MILLI..5 * SECOND);
            state.schedule(after, What::CommitLate { session });
            if let Some(session) = state.sessions.get(session) {
                session.has_client = false;
                session.commits = true;
            }
        }
    }

    async fn commit_now(&mut self, session: u64) -> Result<(), Error> {
        self.store().commit().await?;
        self.world.state().committed(session);
        Ok(())
    }

    /// The holder of the partition's lock, when nothing was heard of it for long.
    fn suspect(&self, partition: i32) -> Option<(u64, Micros)> {
        let mut state = self.world.state();
        let now = state.now;
        let holder = state.sessions.holder(partition)?;
        let session = state.sessions.get(holder)?;
        let (actor, has_client, heard) = (session.actor, session.has_client, session.last_heard);
        let silent = !session.commits && heard + SILENCE_MIN <= now;
        let frozen = !has_client || state.actors[actor].frozen_until > now;
        (silent && frozen).then_some((holder, heard))
    }
}

impl State {
    /// A transaction is committed: the oracle looks at it.
    pub(crate) fn committed(&mut self, session: u64) {
        let Self {
            sessions,
            oracle,
            broker,
            ..
        } = self;
        let Some(open) = sessions.get(session) else {
            return;
        };
        let actor = open.actor;
        let committed = open.rows.take().map(|rows| {
            let outcome = oracle.commit(&rows, &open.known, broker);
            (rows, outcome)
        });
        sessions.release(session);
        let Some((rows, outcome)) = committed else {
            return;
        };
        self.counts.batches += 1;
        for advance in &rows.advances {
            let numbers = &advance.numbers;
            let what = [
                numbers.partition.into(),
                numbers.from_offset,
                numbers.next_offset,
            ];
            self.note(Who::Actor(actor), "committed", &what);
            let member = self.actors[actor].member;
            let is_lane = actor < self.lanes;
            if is_lane
                && member.is_none_or(|member| !self.broker.is_owner(member, numbers.partition))
            {
                self.counts.zombie_commits += 1;
            }
        }
        if let Err(why) = outcome {
            self.fail(why);
        }
    }
}

impl<B: Backend> Store for Gated<B> {
    async fn attach(&mut self, topic: &Topic, starts: &[(i32, i64)]) -> Result<Attached, Error> {
        self.enter("attach", NONE).await?;
        let attached = self.store().attach(topic, starts).await?;
        {
            let mut state = self.world.state();
            if let Err(why) = state.oracle.attached(&attached) {
                state.fail(why);
            }
        }
        self.world.call(self.actor).await;
        Ok(attached)
    }

    async fn lock(&mut self, partitions: &[i32], wait: LockWait) -> Result<Vec<Position>, Error> {
        let first = partitions.first().map_or(NONE, |first| i64::from(*first));
        let session = self.enter("lock", first).await?;
        self.in_transaction = true;
        let limit = match wait {
            LockWait::Normal => LOCK_TIMEOUT,
            LockWait::Short => LOCK_TIMEOUT_SHORT,
        };
        for partition in partitions {
            self.wait_for(session, limit, |sessions| {
                sessions.lock(session, *partition)
            })
            .await?;
        }
        let positions = self.store().lock(partitions, wait).await?;
        {
            let mut state = self.world.state();
            let actor = &state.actors[self.actor];
            let known = Known {
                commits: state.oracle.commits(),
                versions: actor.versions.clone(),
                hinted: actor.hinted.clone(),
            };
            if let Some(session) = state.sessions.get(session) {
                session.known = known;
            }
            if let Some(member) = state.actors[self.actor].member {
                let is_zombie = |p: &i32| !state.broker.is_owner(member, *p);
                if partitions.iter().any(is_zombie) {
                    state.counts.zombie_writes += 1;
                    state.note(Who::Actor(self.actor), "zombie", &[]);
                }
            }
        }
        self.world.call(self.actor).await;
        Ok(positions)
    }

    async fn known(&mut self, ids: &[[u8; 16]]) -> Result<Vec<([u8; 16], [u8; 32])>, Error> {
        self.within("known", NONE).await?;
        self.store().known(ids).await
    }

    async fn held(&mut self, keys: &[(i32, &[u8])]) -> Result<Vec<(i32, Vec<u8>)>, Error> {
        self.within("held", NONE).await?;
        self.store().held(keys).await
    }

    async fn policies(&mut self, accounts: &[&str]) -> Result<Policies, Error> {
        self.within("policies", NONE).await?;
        self.store().policies(accounts).await
    }

    async fn funds(&mut self, accounts: &[(&str, Currency)]) -> Result<Vec<i128>, Error> {
        self.within("funds", NONE).await?;
        self.store().funds(accounts).await
    }

    async fn write(&mut self, outcome: &Outcome<'_>) -> Result<(), Error> {
        let records = i64::try_from(outcome.ledger.len()).unwrap_or(NONE);
        let session = self.within("write", records).await?;
        for row in &outcome.ledger {
            let id = row.transaction.id.into_bytes();
            self.wait_for(session, LOCK_TIMEOUT, |sessions| {
                sessions.reserve(session, id)
            })
            .await?;
        }
        self.store().write(outcome).await?;
        if let Some(session) = self.world.state().sessions.get(session) {
            session.rows = Some(Rc::new(Rows::of(outcome)));
        }
        self.world.call(self.actor).await;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        let session = self.within("commit", NONE).await?;
        let error = || Error::Unavailable("commit: the connection is lost".into());
        if self.world.strikes(Fault::CommitLost) {
            self.lose().await?;
            return Err(error());
        }
        if self.world.strikes(Fault::CommitLate) {
            self.give_up();
            return Err(error());
        }
        let answer_lost = self.world.strikes(Fault::CommitAnswerLost);
        self.commit_now(session).await?;
        self.in_transaction = false;
        if answer_lost {
            self.lose().await?;
            return Err(error());
        }
        self.world.call(self.actor).await;
        Ok(())
    }

    async fn end_frozen(&mut self, partitions: &[i32]) -> Result<bool, Error> {
        self.enter("end frozen", NONE).await?;
        let first: Vec<_> = partitions.iter().map(|p| self.suspect(*p)).collect();
        self.world.turn(self.actor, LOOKS_APART).await;
        let mut any = false;
        for (partition, suspect) in partitions.iter().zip(first) {
            let Some((holder, _)) = suspect.filter(|_| self.suspect(*partition) == suspect) else {
                continue;
            };
            self.orphans.borrow_mut().remove(&holder);
            self.backend.end(holder).await?;
            let mut state = self.world.state();
            state.sessions.end(holder);
            state.counts.frozen_ended += 1;
            state.note(
                Who::Actor(self.actor),
                "ended frozen",
                &[(*partition).into()],
            );
            any = true;
        }
        Ok(any)
    }

    async fn open_parked(
        &mut self,
        partition: i32,
        selection: &Selection,
        after_seq: i64,
        records_max: usize,
    ) -> Result<Vec<OpenParked>, Error> {
        self.within("open parked", partition.into()).await?;
        let store = self.store();
        store
            .open_parked(partition, selection, after_seq, records_max)
            .await
    }

    fn connections(&self) -> u64 {
        self.opened
    }

    async fn rollback(&mut self) {
        if !std::mem::take(&mut self.in_transaction) || self.connection.is_none() {
            return;
        }
        let Ok(session) = self.enter("rollback", NONE).await else {
            return;
        };
        self.store().rollback().await;
        self.world.state().sessions.release(session);
    }

    async fn publish_status(&mut self, statuses: &[PartitionStatus]) -> Result<(), Error> {
        self.enter("status", NONE).await?;
        self.store().publish_status(statuses).await?;
        let mut state = self.world.state();
        for status in statuses {
            state.said(self.actor, status);
        }
        Ok(())
    }
}

impl<B: Backend> Drop for Gated<B> {
    fn drop(&mut self) {
        let Some((session, store)) = self.connection.take() else {
            return;
        };
        let mut state = self.world.state();
        let lingers = state.actors[self.actor].lingers;
        let after = if lingers { KEEPALIVE } else { 0 };
        if let Some(session) = state.sessions.get(session) {
            session.has_client = false;
        }
        state.schedule(after, What::SessionEnds { session });
        self.orphans.borrow_mut().insert(session, store);
    }
}
