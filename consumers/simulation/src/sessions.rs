//! The database's connections, and who holds which lock: decided here, so that the store behind never waits.

use std::collections::BTreeMap;
use std::rc::Rc;

use millrace_ledger::kafka::log::Hint;

use crate::rows::Rows;
use crate::world::Micros;

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whose it is.
    pub actor: usize,
    /// Whether the client is still there.
    pub has_client: bool,
    /// When the client last said something.
    pub last_heard: Micros,
    /// A commit is under way: it works and is not frozen.
    pub commits: bool,
    /// What is written and not committed.
    pub rows: Option<Rc<Rows>>,
    /// What its owner knew when it took the locks.
    pub known: Known,
}

/// What an owner knew when it locked its partitions.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// How many commits there had been.
    pub commits: u64,
    /// The version of each partition's log that its last records came from.
    pub versions: BTreeMap<i32, usize>,
    /// What the broker had told it of each partition.
    pub hinted: BTreeMap<i32, Hint>,
}

/// All connections that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<u64, Session>,
    next: u64,
    /// Which connection holds a partition's locks.
    partitions: BTreeMap<i32, u64>,
    /// Which connection has inserted an id and not committed.
    ids: BTreeMap<[u8; 16], u64>,
}

impl Sessions {
    pub fn open(&mut self, actor: usize, now: Micros) -> u64 {
        self.next += 1;
        let session = Session {
            actor,
            has_client: true,
            last_heard: now,
            commits: false,
            rows: None,
            known: Known::default(),
        };
        self.open.insert(self.next, session);
        self.next
    }

    pub fn get(&mut self, session: u64) -> Option<&mut Session> {
        self.open.get_mut(&session)
    }

    /// Takes a partition's lock, unless another connection holds it.
    pub fn lock(&mut self, session: u64, partition: i32) -> bool {
        *self.partitions.entry(partition).or_insert(session) == session
    }

    /// Inserts an id, unless another connection has done so and not committed.
    pub fn reserve(&mut self, session: u64, id: [u8; 16]) -> bool {
        *self.ids.entry(id).or_insert(session) == session
    }

    pub fn holder(&self, partition: i32) -> Option<u64> {
        self.partitions.get(&partition).copied()
    }

    /// The transaction has ended.
    pub fn release(&mut self, session: u64) {
        self.partitions.retain(|_, holder| *holder != session);
        self.ids.retain(|_, holder| *holder != session);
        if let Some(session) = self.open.get_mut(&session) {
            session.rows = None;
            session.commits = false;
        }
    }

    /// The connection has ended, and its transaction with it.
    pub fn end(&mut self, session: u64) {
        self.release(session);
        self.open.remove(&session);
    }

    /// All of them have ended: gives which.
    pub fn end_all(&mut self) -> Vec<u64> {
        self.partitions.clear();
        self.ids.clear();
        std::mem::take(&mut self.open).into_keys().collect()
    }
}
