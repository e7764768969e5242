//! Checkpoints: where the hash chains were at a time. Kept elsewhere and signed, one shows later that nothing
//! before it was written anew, however consistently.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::chain::{GENESIS, Head};
use crate::store::Micros;
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

/// How a partition was after some batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) incarnation: i32,
    pub(super) position: i64,
    pub(super) next_seq: i64,
    pub(super) head: Head,
    pub(super) counts: Counts,
}

impl Mark {
    /// What is not as it was marked.
    pub(super) fn difference(&self, found: &Found) -> Option<String> {
        let head = (hex::encode(self.head), hex::encode(found.head));
        let parts = [
            ("chain head", head.0, head.1),
            (
                "next seq",
                self.next_seq.to_string(),
                found.next_seq.to_string(),
            ),
            (
                "position",
                self.position.to_string(),
                found.position.to_string(),
            ),
            (
                "incarnation",
                self.incarnation.to_string(),
                found.incarnation.to_string(),
            ),
            ("counts", self.counts.to_string(), found.counts.to_string()),
        ];
        let differing = parts
            .into_iter()
            .filter(|(_, marked, found)| marked != found);
        let differing: Vec<_> = differing
            .map(|(name, marked, found)| format!("{name} marked as {marked}, found {found}"))
            .collect();
        (!differing.is_empty()).then(|| differing.join("; "))
    }

    fn place(&self) -> String {
        format!(
            "partition {}, after {} batches",
            self.partition, self.batches
        )
    }
}

impl Checkpoint {
    /// Before this (microseconds since 1970) a partition's first batch was surely there to be marked,
    /// whatever clocks differ.
    pub(super) fn surely_marked_before(&self) -> i64 {
        const CLOCKS_DIFFER_MAX: i64 = 60_000_000;
        self.taken_at - CLOCKS_DIFFER_MAX
    }
}

/// The database must still have all that was marked where it was.
pub(super) async fn compare(
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let log = log(connection).await?;
    let fits = |log: &Log| {
        (log.database, &log.topic) == (checkpoint.database, &checkpoint.topic)
            && !matches!((&log.cluster_id, &checkpoint.cluster), (Some(a), Some(b)) if a != b)
    };
    if !log.as_ref().is_some_and(fits) {
        let cluster = |cluster: &Option<String>| cluster.clone().unwrap_or("unknown".into());
        report.find(
            "checkpoint",
            format!(
                "database {}, topic {}, cluster {}",
                checkpoint.database,
                checkpoint.topic,
                cluster(&checkpoint.cluster)
            ),
            match log {
                Some(log) => format!(
                    "this is database {}, topic {}, cluster {}",
                    log.database,
                    log.topic,
                    cluster(&log.cluster_id)
                ),
                None => "nothing was ever applied to this database".into(),
            },
        );
        return Ok(());
    }
    for mark in &checkpoint.partitions {
        match find(connection, mark).await? {
            None => report.find("checkpoint", mark.place(), "there are not so many".into()),
            Some(found) => {
                if let Some(difference) = mark.difference(&found) {
                    let detail =
                        format!("{difference}: this batch or what lies before was changed");
                    report.find("checkpoint", mark.place(), detail);
                }
            }
        }
    }
    let marked: Vec<_> = checkpoint.partitions.iter().map(|m| m.partition).collect();
    let unmarked = sqlx::query_scalar!(
        "select partition from millrace.batches
         where batch = 0 and recorded_at < $1 and partition <> all($2) order by partition",
        Micros(checkpoint.surely_marked_before()) as _,
        &marked
    )
    .fetch_all(connection)
    .await?;
    for partition in unmarked {
        report.find(
            "checkpoint",
            format!("partition {partition}"),
            UNMARKED.into(),
        );
    }
    report.marks = Some(checkpoint.partitions.len());
    Ok(())
}

/// What is wrong with a partition that a checkpoint does not have.
pub(super) const UNMARKED: &str =
    "it had batches when the checkpoint was made, which has no mark of it";

/// What the batches of a mark come to; none where they are not all there.
async fn find(connection: &mut PgConnection, mark: &Mark) -> Result<Option<Found>, sqlx::Error> {
    if mark.batches == 0 {
        return Ok(Some(Found {
            incarnation: mark.incarnation,
            position: mark.position,
            next_seq: 0,
            head: GENESIS,
            counts: Counts::default(),
        }));
    }
    let last = sqlx::query!(
        "select chain_head, next_seq, next_offset, incarnation from millrace.batches
         where partition = $1 and batch = $2",
        mark.partition,
        mark.batches - 1
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(last) = last else {
        return Ok(None);
    };
    let counts = conservation::count_batches(connection, mark.partition, 0..mark.batches).await?;
    Ok(Head::try_from(last.chain_head).ok().map(|head| Found {
        incarnation: last.incarnation,
        position: last.next_offset,
        next_seq: last.next_seq,
        head,
        counts,
    }))
}
