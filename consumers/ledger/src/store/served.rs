//! Which partitions of the topic a database serves: it says so itself, never a replica's environment.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sqlx::{Connection as _, PgConnection};

/// The most that a topic may have.
const PARTITIONS_MAX: i32 = 10_000;

/// The partitions that a database serves; by default all that the topic has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served(
    /// Ascending, each once; none: all.
    Option<Vec<i32>>,
);

/// Why a database cannot serve these partitions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rows cannot be taken out of a database.
    #[error(
        "the database has begun partitions {begun}, which {wanted} leaves out: what a database has begun it \
         serves for ever"
    )]
    Begun {
        /// What would fall out.
        begun: Served,
        /// What it should serve.
        wanted: Served,
    },
    /// There is nothing to serve.
    #[error("the topic has {count} partitions, and no partition {partition}")]
    Beyond {
        /// The first that is not there.
        partition: i32,
        /// How many there are.
        count: i32,
    },
    /// Everything else.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
}

impl Served {
    /// Whether these are all that the topic has, whatever their number.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the partition is one of them.
    pub fn has(&self, partition: i32) -> bool {
        self.0
            .as_ref()
            .is_none_or(|some| some.binary_search(&partition).is_ok())
    }

    /// Those of a topic with this many partitions, ascending.
    pub fn of(&self, count: i32) -> impl Iterator<Item = i32> {
        (0..count).filter(|partition| self.has(*partition))
    }

    /// As the database has it.
    pub(crate) fn from_column(partitions: Option<Vec<i32>>) -> Self {
        Self(partitions.map(|some| {
            let once: BTreeSet<_> = some.into_iter().collect();
            once.into_iter().collect()
        }))
    }

    /// The first that a topic with this many partitions does not have.
    pub(crate) fn beyond(&self, count: i32) -> Option<i32> {
        let mut some = self.0.iter().flatten();
        some.find(|partition| **partition >= count).copied()
    }

    /// An array for Postgres; empty: all.
    pub(crate) fn literal(&self) -> String {
        let Some(some) = &self.0 else {
            return String::new();
        };
        let some: Vec<_> = some.iter().map(i32::to_string).collect();
        format!("{{{}}}", some.join(","))
    }
}

/// `0-5`, `0,3,7-9`, `all`.
impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self(None));
        }
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<i32>().ok();
            let number = number.filter(|n| digits && *n < PARTITIONS_MAX);
            number.ok_or_else(|| {
                format!("all, or partitions below {PARTITIONS_MAX} such as 0-5 or 0,3,7-9")
            })
        };
        let mut some = BTreeSet::<i32>::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part} ends before it begins"));
            }
            some.extend(first..=last);
        }
        Ok(Self(Some(some.into_iter().collect())))
    }
}

/// As it is read.
impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(some) = &self.0 else {
            return f.write_str("all");
        };
        let follows = |a: &i32, b: &i32| *a + 1 == *b;
        for (number, run) in some.chunk_by(follows).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

/// What the database serves.
pub async fn read(connection: &mut PgConnection) -> Result<Served, sqlx::Error> {
    let partitions = sqlx::query_scalar!("select partitions from millrace.served")
        .fetch_optional(connection)
        .await?;
    Ok(Served::from_column(partitions.flatten()))
}

/// How many partitions the topic has that the database applies; none before a lane has seen it.
pub async fn topic_partitions(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar!("select partitions from millrace.log")
        .fetch_optional(connection)
        .await
}

/// Says what the database serves from now on: partitions that it has begun cannot fall out. Lanes that are at
/// work begin new ones within ten seconds.
pub async fn set(connection: &mut PgConnection, served: &Served) -> Result<(), Error> {
    let mut db_tx = connection.begin().await?;
    // No lane begins a partition until this transaction ends. It touches no row that a batch waits for.
    sqlx::query!("lock table millrace.positions in share row exclusive mode")
        .execute(&mut *db_tx)
        .await?;
    if read(&mut db_tx).await? == *served {
        return Ok(());
    }
    let count = topic_partitions(&mut db_tx).await?;
    if let Some((partition, count)) = count.and_then(|count| Some((served.beyond(count)?, count))) {
        return Err(Error::Beyond { partition, count });
    }
    let mut begun = sqlx::query_scalar!("select partition from millrace.positions order by 1")
        .fetch_all(&mut *db_tx)
        .await?;
    begun.retain(|partition| !served.has(*partition));
    if !begun.is_empty() {
        return Err(Error::Begun {
            begun: Served(Some(begun)),
            wanted: served.clone(),
        });
    }
    sqlx::query!(
        "insert into millrace.served (partitions) values ($1)
         on conflict (singleton) do update set partitions = excluded.partitions",
        served.0.as_deref()
    )
    .execute(&mut *db_tx)
    .await?;
    Ok(db_tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_and_shown_as_ranges() {
        for (text, shown, has, has_not) in [
            ("all", "all", &[0, 5, 9_999][..], &[][..]),
            ("0-5", "0-5", &[0, 3, 5], &[6, 11]),
            ("7-9, 0,3,8,4", "0,3-4,7-9", &[0, 3, 4, 9], &[1, 5, 6]),
            ("11", "11", &[11], &[10, 12]),
        ] {
            let served: Served = text.parse().unwrap();
            assert_eq!(served.to_string(), shown);
            assert!(has.iter().all(|p| served.has(*p)), "{text}");
            assert!(!has_not.iter().any(|p| served.has(*p)), "{text}");
            assert_eq!(shown.parse(), Ok(served));
        }
        for bad in ["", "-", "1-", "-1", "5-3", "0,,1", "+1", "0-10000", "none"] {
            assert!(bad.parse::<Served>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_topic_has_some_of_them() {
        let served: Served = "2-4".parse().unwrap();
        assert_eq!(served.of(4).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((served.beyond(4), served.beyond(5)), (Some(4), None));
        assert_eq!(served.literal(), "{2,3,4}");
        let all = Served::default();
        assert!(all.is_all() && all.of(3).eq(0..3));
        assert_eq!((all.beyond(1), all.literal()), (None, String::new()));
    }
}
