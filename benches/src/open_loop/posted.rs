//! Whether what was accepted is posted: the database's own count of verdicts.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

/// What is accepted is applied within this time, or it is lost.
const WAIT_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(200);
/// Long enough for one too many to show.
const SETTLE: Duration = Duration::from_secs(1);

/// Waits until so many are posted, or for as long as that may take. Gives how many are.
pub async fn wait_for(connection: &mut PgConnection, accepted: u64) -> anyhow::Result<i64> {
    let give_up = Instant::now() + WAIT_MAX;
    let wanted = i64::try_from(accepted)?;
    while count(connection).await? < wanted && Instant::now() < give_up {
        tokio::time::sleep(POLL).await;
    }
    tokio::time::sleep(SETTLE).await;
    count(connection).await
}

async fn count(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let query = "select coalesce(sum(posted), 0)::bigint from reports.conservation";
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}
