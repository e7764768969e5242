//! Whether what was accepted is posted: the database's own count of verdicts.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

/// What is accepted is applied within this time, or it is lost.
const WAIT_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// Long enough for one too many to show.
const SETTLE: Duration = Duration::from_secs(1);

/// The count since some moment.
pub struct Posted {
    connection: PgConnection,
    before: i64,
}

impl Posted {
    /// What is posted already.
    pub async fn before(database_url: &str) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(database_url)
            .await
            .context("connecting to Postgres")?;
        let before = count(&mut connection).await?;
        Ok(Self { connection, before })
    }

    /// Waits until so many were posted since, or for as long as that may take. Gives how many.
    pub async fn wait_for(&mut self, accepted: u64) -> anyhow::Result<i64> {
        let give_up = Instant::now() + WAIT_MAX;
        let wanted = i64::try_from(accepted)?;
        while count(&mut self.connection).await? - self.before < wanted && Instant::now() < give_up
        {
            tokio::time::sleep(POLL).await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(count(&mut self.connection).await? - self.before)
    }
}

async fn count(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let query = "select coalesce(sum(posted), 0)::bigint from reports.conservation";
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}
