//! Whether what was accepted is posted: the database's own count of verdicts.

use std::time::{Duration, Instant};

use millrace_benches::results::say;
use sqlx::PgConnection;

/// What is accepted is applied within this time, or it is lost.
const WAIT_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(200);
/// Who waits for longer is told what for.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Long enough for one too many to show.
const SETTLE: Duration = Duration::from_secs(1);

/// Waits until so many are posted, or for as long as that may take. Gives how many are.
pub async fn wait_for(connection: &mut PgConnection, accepted: u64) -> anyhow::Result<i64> {
    let give_up = Instant::now() + WAIT_MAX;
    let mut tell_at = Instant::now() + SILENT_MAX;
    let wanted = i64::try_from(accepted)?;
    loop {
        let posted = count(connection).await?;
        if posted >= wanted || Instant::now() >= give_up {
            break;
        }
        if Instant::now() >= tell_at {
            say(&format!(
                "  waiting for the ledger: {posted} of {wanted} are posted"
            ));
            tell_at += SILENT_MAX;
        }
        tokio::time::sleep(POLL).await;
    }
    tokio::time::sleep(SETTLE).await;
    count(connection).await
}

async fn count(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let query = "select coalesce(sum(posted), 0)::bigint from reports.conservation";
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}
