//! Checkpoints: where the hash chains were at a time. Kept elsewhere and signed, one shows later that nothing
//! before it was written anew, however consistently.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::chain::Head;
use crate::verify::batches::ends;
use crate::verify::{Counts, Report, conservation, text};

/// What the files begin with.
const FORMAT: &str = "millrace-checkpoint-1";

/// The chain heads of all partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    format: String,
    /// Which database.
    pub database: Uuid,
    /// The topic that it applies.
    pub topic: String,
    /// The topic's cluster, where it is known.
    pub cluster: Option<String>,
    /// When it was made, microseconds since 1970.
    #[serde(with = "text::micros")]
    pub taken_at: i64,
    /// Ascending.
    pub partitions: Vec<Mark>,
}

/// Where a partition was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The partition.
    pub partition: i32,
    /// The incarnation of the position.
    pub incarnation: i32,
    /// The next log offset to apply.
    pub position: i64,
    /// How many rows there were.
    pub next_seq: i64,
    /// How many batches: the head is that of the last of them.
    pub batches: i64,
    /// The chain head.
    #[serde(with = "hex")]
    pub head: Head,
    /// What the batches counted.
    pub counts: Counts,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// The file is not one.
    #[error("not a checkpoint: {0}")]
    Invalid(String),
    /// There is nothing to mark.
    #[error("nothing of a topic was ever read")]
    Empty,
}

/// The row of `log`.
pub(super) struct Log {
    pub(super) database: Uuid,
    pub(super) topic: String,
    pub(super) cluster_id: Option<String>,
}

pub(super) async fn log(connection: &mut PgConnection) -> Result<Option<Log>, sqlx::Error> {
    sqlx::query_as!(
        Log,
        "select database_id as database, topic, cluster_id from millrace.log"
    )
    .fetch_optional(connection)
    .await
}

impl Checkpoint {
    /// Marks where the database is now; `now` is microseconds since 1970.
    pub async fn take(connection: &mut PgConnection, now: i64) -> Result<Self, Error> {
        let log = log(connection).await?.ok_or(Error::Empty)?;
        let mut partitions = Vec::new();
        for end in ends(connection).await? {
            let counts = conservation::count_batches(connection, end.partition, 0..end.next_batch);
            partitions.push(Mark {
                partition: end.partition,
                incarnation: end.incarnation,
                position: end.position,
                next_seq: end.next_seq,
                batches: end.next_batch,
                counts: counts.await?,
                head: Head::try_from(end.chain_head)
                    .map_err(|head| Error::Invalid(format!("a head of {} bytes", head.len())))?,
            });
        }
        Ok(Self {
            format: FORMAT.into(),
            database: log.database,
            topic: log.topic,
            cluster: log.cluster_id,
            taken_at: now,
            partitions,
        })
    }

    /// Reads a file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let parsed: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::Invalid(error.to_string()))?;
        if parsed.format == FORMAT {
            Ok(parsed)
        } else {
            Err(Error::Invalid(format!("its format is {:?}", parsed.format)))
        }
    }

    /// A file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("numbers, texts and moments can be written");
        bytes.push(b'\n');
        bytes
    }

    /// A partition's mark.
    pub fn mark(&self, partition: i32) -> Option<&Mark> {
        let mut marks = self.partitions.iter();
        marks.find(|mark| mark.partition == partition)
    }
}

/// The database must still have every head of the checkpoint where it was.
pub(super) async fn compare(
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let log = log(connection).await?;
    let database = log.as_ref().map(|log| (log.database, log.topic.as_str()));
    if database != Some((checkpoint.database, &checkpoint.topic)) {
        report.find(
            "checkpoint",
            format!(
                "database {}, topic {}",
                checkpoint.database, checkpoint.topic
            ),
            format!("the database at hand is {database:?}"),
        );
        return Ok(());
    }
    for mark in checkpoint.partitions.iter().filter(|mark| mark.batches > 0) {
        let stored = sqlx::query!(
            "select chain_head, next_seq from millrace.batches where partition = $1 and batch = $2",
            mark.partition,
            mark.batches - 1
        )
        .fetch_optional(&mut *connection)
        .await?;
        let is_there = stored
            .as_ref()
            .is_some_and(|row| row.chain_head == mark.head && row.next_seq == mark.next_seq);
        if !is_there {
            let found = stored.map_or("no such batch".into(), |row| hex::encode(row.chain_head));
            report.find(
                "checkpoint",
                format!(
                    "partition {}, at or before batch {}, seq {}",
                    mark.partition,
                    mark.batches - 1,
                    mark.next_seq
                ),
                format!(
                    "the chain head was {}, now it is {found}: history was written anew",
                    hex::encode(mark.head)
                ),
            );
        }
    }
    report.marks = Some(checkpoint.partitions.len());
    Ok(())
}
