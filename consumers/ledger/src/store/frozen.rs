//! Ending the connection of an owner that is frozen.
//!
//! A process that is stopped (SIGSTOP, a stalled machine) in the middle of a database transaction keeps its
//! locks through every timeout of Postgres. The next owner of the partition finds who holds the partition's
//! advisory lock, and ends that connection when the server has been waiting for the client and nothing
//! else all the time: between two statements, in a COPY of which not a byte comes, or with an answer to a
//! statement of half a minute ago that is not taken. One that computes, waits for a lock, for a disk or
//! for replication is left alone however long it takes.

use std::time::Duration;

use sqlx::PgConnection;
use tracing::warn;

use crate::store::error::Error;
use crate::store::postgres::BECOME_WRITER;
use crate::store::read::LOCK_CLASS;

/// For how long the statement must have begun, or ended without the next one, before its client is
/// suspected. A lane sends all of a batch at once: between two messages there are milliseconds.
const SILENCE_MIN_S: f64 = 2.0;

/// The same while the server is writing its answer, of which nothing tells how much was taken, nor for how long
/// it was computed: 4 MiB, about the most that is asked for, take less at 2 Mbit/s.
const UNREAD_MIN_S: f64 = 30.0;

/// How far apart a suspect is looked at twice: not a byte may have come meanwhile.
const LOOKS_APART: Duration = Duration::from_millis(200);

/// A connection that waits for its client while it holds a partition's lock.
#[derive(Debug, PartialEq)]
struct Suspect {
    pid: i32,
    /// What changes with every message of the client: when its backend and statement began, its state, and
    /// how much of a COPY has come.
    marks: String,
    application: String,
}

/// Ends who holds the lock of one of these partitions and is frozen. Gives whether there was one. Not
/// within a transaction.
pub(super) async fn end(connection: &mut PgConnection, partitions: &[i32]) -> Result<bool, Error> {
    // As the login, which may see and end its own connections; the writer's role may not.
    sqlx::raw_sql("reset role")
        .execute(&mut *connection)
        .await?;
    let ended = find_and_end(connection, partitions).await;
    sqlx::raw_sql(BECOME_WRITER).execute(connection).await?;
    ended
}

async fn find_and_end(connection: &mut PgConnection, partitions: &[i32]) -> Result<bool, Error> {
    let first = suspects(connection, partitions).await?;
    if first.is_empty() {
        return Ok(false);
    }
    tokio::time::sleep(LOOKS_APART).await;
    let second = suspects(connection, partitions).await?;
    let mut any = false;
    for suspect in second.iter().filter(|suspect| first.contains(suspect)) {
        any |= end_one(connection, suspect).await?;
    }
    Ok(any)
}

async fn suspects(
    connection: &mut PgConnection,
    partitions: &[i32],
) -> Result<Vec<Suspect>, Error> {
    let rows = sqlx::query_as!(
        Suspect,
        r#"select distinct a.pid as "pid!", a.application_name as "application!",
             concat_ws(' ', a.backend_start, a.query_start, a.state_change, a.state, c.bytes_processed)
                 as "marks!"
         from pg_locks l
         join pg_stat_activity a on a.pid = l.pid
         left join pg_stat_progress_copy c on c.pid = a.pid
         where l.locktype = 'advisory' and l.granted and l.objsubid = 2
             and l.database = (select oid from pg_database where datname = current_database())
             and l.classid::bigint = $1::int and l.objid::bigint = any($2::int[])
             and a.wait_event in ('ClientRead', 'ClientWrite')
             and greatest(a.state_change, a.query_start) < clock_timestamp()
                 - make_interval(secs => case a.wait_event when 'ClientRead' then $3::float8 else $4::float8 end)"#,
        LOCK_CLASS,
        partitions,
        SILENCE_MIN_S,
        UNREAD_MIN_S
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// The last look and the end are one statement.
async fn end_one(connection: &mut PgConnection, suspect: &Suspect) -> Result<bool, Error> {
    let ended = sqlx::query_scalar!(
        r#"select pg_terminate_backend(a.pid) as "ended!"
         from pg_stat_activity a left join pg_stat_progress_copy c on c.pid = a.pid
         where a.pid = $1 and a.wait_event in ('ClientRead', 'ClientWrite')
             and concat_ws(' ', a.backend_start, a.query_start, a.state_change, a.state, c.bytes_processed)
                 = $2"#,
        suspect.pid,
        suspect.marks
    )
    .fetch_optional(connection)
    .await?
    .unwrap_or(false);
    if ended {
        let (pid, owner) = (suspect.pid, &suspect.application);
        warn!(
            pid,
            owner, "ended the connection of an owner that is frozen and held a partition's lock"
        );
    }
    Ok(ended)
}
