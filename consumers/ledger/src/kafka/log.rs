//! The log as one lane sees it.

use std::time::Duration;

use uuid::Uuid;

use crate::record::Intake;

/// What happened besides records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These partitions are now this lane's. Nothing is read from them before [`Log::start`].
    Assigned(Vec<i32>),
    /// These partitions are another's; nothing of them may be begun any more.
    Revoked(Vec<i32>),
    /// The partition cannot be read on from where it was asked to start.
    OutOfRange(i32),
    /// This log will hand out nothing more: begin with another.
    Broken(String),
}

/// The topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// The cluster that holds it, where it tells.
    pub cluster_id: Option<String>,
}

/// The offsets that a partition's log holds: `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset that is still there.
    pub start: i64,
    /// The offset after the last committed record.
    pub end: i64,
}

/// How far a database was with a partition, as the broker was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// The partition.
    pub partition: i32,
    /// The next offset that the database had not applied.
    pub offset: i64,
    /// Which database.
    pub database: Uuid,
    /// The incarnation of its position.
    pub incarnation: i32,
}

/// Why a request to the log failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic is not there: an operator creates it.
    #[error("topic {0:?} does not exist; create it with: millrace topics create --topic {0}")]
    TopicMissing(String),
    /// A property that the client does not take: correct it. Never with the property's value.
    #[error("{0}")]
    Settings(String),
    /// Everything else may pass.
    #[error("{0}")]
    Unavailable(String),
}

/// The log: Kafka, or a simulation of it. One lane owns it; no call is made from two threads.
#[expect(
    async_fn_in_trait,
    reason = "lanes are generic over their log and never sent while running"
)]
pub trait Log {
    /// Waits up to `wait` for something to happen, then hands out what is there until the intake is
    /// full. An event ends the call at once.
    async fn poll(&mut self, wait: Duration, intake: &mut Intake) -> Option<Event>;

    /// Asks for the topic.
    async fn topic(&mut self) -> Result<Topic, Error>;

    /// Asks for a partition's bounds.
    async fn bounds(&mut self, partition: i32) -> Result<Bounds, Error>;

    /// What keeps the log from being read at all, if anything does. No request.
    fn problem(&self) -> Option<Error>;

    /// The bounds that the last fetch showed, without a request.
    fn last_bounds(&self, partition: i32) -> Option<Bounds>;

    /// Reads each (partition, offset) from there on, whether it was read before, held, or neither;
    /// whatever was fetched before is dropped.
    async fn start(&mut self, positions: &[(i32, i64)]) -> Result<(), Error>;

    /// Stops reading these partitions until the next [`Log::start`], but stays their owner.
    fn hold(&mut self, partitions: &[i32]);

    /// Tells the broker how far the database is. Only a hint: no position is ever taken from it.
    fn hint(&mut self, hints: &[Hint]);

    /// What the broker was last told of these partitions, by any member of the group.
    async fn hints(&mut self, partitions: &[i32]) -> Result<Vec<Hint>, Error>;
}
