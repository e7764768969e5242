//! How fresh an answer is, and waiting until it is fresh enough.
//!
//! **As of.** Everything that came into the log before that time is in the answer. Per partition it is
//! when its owner last saw nothing beyond the position, else when the oldest unapplied record came in;
//! for a background read model also when its oldest unfolded outcome was recorded. It is read *before*
//! the answer, so the answer can only be fresher; one that is a moment old is as true, and is reused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use millrace_http::Problem;
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::database::Error;

/// RFC 3339; everything that came into the log before is in the answer.
pub const AS_OF: HeaderName = HeaderName::from_static("millrace-as-of");
/// Milliseconds between that time and the answer.
pub const STALENESS: HeaderName = HeaderName::from_static("millrace-staleness-ms");

/// The value of both headers when no owner of a partition has ever reported.
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// How long a picture is reused.
const REUSE: Duration = Duration::from_millis(100);
/// The same for positions, while somebody waits for one.
const GLANCE: Duration = Duration::from_millis(2);

/// The longest wait for a position.
pub const WAIT_MAX_MS: u32 = 10_000;
/// The wait where the request names none.
pub const WAIT_DEFAULT_MS: u32 = 2_000;
/// The most positions that one request may wait for.
const POSITIONS_MAX: usize = 64;

/// What was read last, and when.
type Last<T> = Arc<Mutex<Option<(Instant, T)>>>;

/// How fresh the database is. Clones share what was read last.
#[derive(Debug, Clone)]
pub struct Freshness {
    pool: PgPool,
    picture: Last<Picture>,
    positions: Last<Vec<Position>>,
}

/// As-of times, microseconds since 1970; none where that is not known.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
struct Picture {
    now: i64,
    ledger: Option<i64>,
    account_days: Option<i64>,
    flows: Option<i64>,
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Position {
    partition: i32,
    next_offset: i64,
    next_seq: i64,
}

/// How fresh one answer is; by default unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsOf {
    /// Microseconds since 1970 and the age in milliseconds, where they are known.
    known: Option<(i64, u64)>,
}

impl AsOf {
    /// Adds both headers.
    pub fn stamp(self, headers: &mut HeaderMap) {
        let (as_of, staleness) = match self.time().zip(self.staleness_ms()) {
            Some((time, ms)) => (
                HeaderValue::from_str(&time.to_string()).unwrap_or(UNKNOWN),
                ms.into(),
            ),
            None => (UNKNOWN, UNKNOWN),
        };
        headers.insert(AS_OF, as_of);
        headers.insert(STALENESS, staleness);
    }

    /// The time, where it is known.
    pub fn time(self) -> Option<Timestamp> {
        self.known
            .and_then(|(micros, _)| Timestamp::from_microsecond(micros).ok())
    }

    /// The age in milliseconds.
    pub fn staleness_ms(self) -> Option<u64> {
        self.known.map(|(_, ms)| ms)
    }
}

/// What a request waits for: from the parameter `at_least`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtLeast(Vec<(i32, i64)>);

impl AtLeast {
    /// `PARTITION:OFFSET`, several separated by commas.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let one = |part: &str| {
            let (partition, offset) = part.split_once(':')?;
            let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            if !digits(partition) || !digits(offset) {
                return None;
            }
            let offset = offset.parse::<i64>().ok().filter(|o| *o < i64::MAX)?;
            Some((partition.parse::<i32>().ok()?, offset))
        };
        let all: Option<Vec<_>> = text.split(',').take(POSITIONS_MAX + 1).map(one).collect();
        match all {
            Some(all) if all.len() <= POSITIONS_MAX => Ok(Self(all)),
            _ => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_at_least",
                format!(
                    "at_least is PARTITION:OFFSET as a receipt shows them, at most {POSITIONS_MAX} of them separated by commas"
                ),
            )
            .field("at_least")),
        }
    }
}

impl Freshness {
    /// Of the database behind the pool.
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            picture: Arc::default(),
            positions: Arc::default(),
        }
    }

    /// How fresh an answer is that is read after this; `model` is the background read model it is from.
    pub async fn as_of(&self, model: Option<&str>) -> Result<AsOf, Error> {
        let mut last = self.picture.lock().await;
        let (read_at, picture) = match &*last {
            Some((at, picture)) if at.elapsed() < REUSE => (*at, picture.clone()),
            _ => {
                // Its time is that of the database's clock; what passes since is told by ours.
                let picture: Picture = sqlx::query_as(PICTURE).fetch_one(&self.pool).await?;
                let read_at = Instant::now();
                *last = Some((read_at, picture.clone()));
                (read_at, picture)
            }
        };
        drop(last);
        let as_of = match model {
            Some("account_days") => picture.account_days,
            Some("flows") => picture.flows,
            _ => picture.ledger,
        };
        let elapsed_ms = u64::try_from(read_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let known = as_of.map(|as_of| {
            let age_ms = u64::try_from((picture.now - as_of) / 1000).unwrap_or(0);
            (as_of, age_ms + elapsed_ms)
        });
        Ok(AsOf { known })
    }

    /// Waits until all positions are applied, and folded into `model`. A problem when `wait` was too short.
    pub async fn wait_for(
        &self,
        at_least: &AtLeast,
        model: Option<&str>,
        wait: Duration,
    ) -> Result<(), Error> {
        let give_up = Instant::now() + wait;
        loop {
            let missing = self.missing(at_least, model).await?;
            let Some(missing) = missing else {
                return Ok(());
            };
            if Instant::now() + GLANCE >= give_up {
                return Err(Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "not_yet_applied",
                    format!("{missing} within {} ms", wait.as_millis()),
                )
                .field("at_least")
                .retry_after(1)
                .into());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// What is not there yet.
    async fn missing(
        &self,
        at_least: &AtLeast,
        model: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let positions = self.positions().await?;
        for &(partition, offset) in &at_least.0 {
            let found = positions.iter().find(|p| p.partition == partition);
            let Some(found) = found else {
                self.refuse_elsewhere(partition).await?;
                return Ok(Some(format!("partition {partition} was not served")));
            };
            if found.next_offset <= offset {
                return Ok(Some(format!(
                    "offset {offset} of partition {partition} was not applied (the next one is {})",
                    found.next_offset
                )));
            }
            if let Some(model) = model
                && !self.is_folded(model, found, offset).await?
            {
                return Ok(Some(format!(
                    "offset {offset} of partition {partition} was not folded into {model}"
                )));
            }
        }
        Ok(None)
    }

    /// A problem when another database serves the partition: it is waited for in vain here.
    async fn refuse_elsewhere(&self, partition: i32) -> Result<(), Error> {
        let query = "select partitions from reports.served
            where $1 <> all (partitions) and ($1 < topic_partitions) is not false";
        let served: Option<Vec<i32>> = sqlx::query_scalar(query)
            .bind(partition)
            .fetch_optional(&self.pool)
            .await?;
        match served {
            None => Ok(()),
            Some(served) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "partition_not_served",
                format!(
                    "partition {partition} is in another database; this one serves {}: ask the query service of the other",
                    ranges(&served)
                ),
            )
            .field("at_least")
            .into()),
        }
    }

    async fn positions(&self) -> Result<Vec<Position>, Error> {
        let mut last = self.positions.lock().await;
        if let Some((at, positions)) = &*last
            && at.elapsed() < GLANCE
        {
            return Ok(positions.clone());
        }
        let query = "select partition, position as next_offset, next_seq from reports.positions";
        let positions: Vec<Position> = sqlx::query_as(query).fetch_all(&self.pool).await?;
        *last = Some((Instant::now(), positions.clone()));
        Ok(positions)
    }

    /// Whether a model holds what the batch of this offset has stored.
    async fn is_folded(&self, model: &str, found: &Position, offset: i64) -> Result<bool, Error> {
        let query = "select m.position >= least(b.next_seq, $4)
             from reports.read_model_freshness m,
                 lateral (
                     select next_seq from reports.batches
                     where partition = $2 and from_offset <= $3 order by batch desc limit 1
                 ) b
             where m.model = $1 and m.partition = $2";
        let folded: Option<bool> = sqlx::query_scalar(query)
            .bind(model)
            .bind(found.partition)
            .bind(offset)
            .bind(found.next_seq)
            .fetch_optional(&self.pool)
            .await?;
        // No batch has it: it lies before the incarnation, whose start is folded as it was found.
        Ok(folded.unwrap_or(true))
    }
}

/// Ascending numbers as people read them: `0-5, 7`.
fn ranges(numbers: &[i32]) -> String {
    let runs = numbers.chunk_by(|a, b| *a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

const PICTURE: &str = "
    with ledger as (
        select case when bool_and(as_of is not null) then min(as_of) end as as_of
        from (
            select case
                when log_end <= position then now() - make_interval(secs => status_age_s::float8)
                else coalesce(oldest_unapplied_at, recorded_at)
            end as as_of
            from reports.freshness
        ) p
    ), models as (
        select min(oldest_unfolded_at) filter (where model = 'account_days') as account_days,
            min(oldest_unfolded_at) filter (where model = 'flows') as flows
        from reports.read_model_freshness
    )
    select (extract(epoch from now()) * 1000000)::bigint as now,
        (extract(epoch from l.as_of) * 1000000)::bigint as ledger,
        (extract(epoch from case when l.as_of is not null then least(l.as_of, m.account_days) end) * 1000000)::bigint
            as account_days,
        (extract(epoch from case when l.as_of is not null then least(l.as_of, m.flows) end) * 1000000)::bigint as flows
    from ledger l, models m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }

    #[test]
    fn at_least_is_partition_and_offset() {
        assert_eq!(AtLeast::parse("3:17").unwrap(), AtLeast(vec![(3, 17)]));
        assert_eq!(
            AtLeast::parse("0:0,11:5").unwrap(),
            AtLeast(vec![(0, 0), (11, 5)])
        );
        for bad in [
            "",
            ":",
            "1",
            "1:",
            ":1",
            "-1:2",
            "1:-2",
            "+1:2",
            "1:2,",
            "a:b",
            "1:9223372036854775807",
            "99999999999:1",
        ] {
            assert_eq!(
                AtLeast::parse(bad).unwrap_err().code(),
                "invalid_at_least",
                "{bad}"
            );
        }
        assert!(AtLeast::parse(&["1:1"; 65].join(",")).is_err());
    }
}
