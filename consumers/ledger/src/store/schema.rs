//! The database's schema: migrations, and what the code knows better than SQL.

use millrace_rules::{Currency, ParkReason, Reason};
use sqlx::error::DatabaseError;
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection};

use crate::store::served::{self, Served};

/// Every migration of this binary, in order.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why the schema does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operator migrates it.
    #[error("the database is not migrated; run: millrace migrate")]
    NotMigrated,
    /// An operator migrates it.
    #[error(
        "the database is at schema version {found}, this binary needs {known}; run: millrace migrate"
    )]
    Older {
        /// The database's version.
        found: i64,
        /// This binary's version.
        known: i64,
    },
    /// A newer Millrace was here.
    #[error(
        "the database is at schema version {found}, this binary knows up to {known}; use a newer millrace"
    )]
    Newer {
        /// The database's version.
        found: i64,
        /// This binary's version.
        known: i64,
    },
    /// What it serves cannot be changed to that.
    #[error("{0}")]
    Served(#[from] served::Error),
    /// A migration failed; what it did is undone.
    #[error("migrating: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Everything else.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// Whether the login may not see the schema.
    pub fn is_forbidden(&self) -> bool {
        match self {
            // insufficient_privilege
            Self::Database(error) => {
                let code = error.as_database_error().and_then(DatabaseError::code);
                code.as_deref() == Some("42501")
            }
            _ => false,
        }
    }
}

/// The schema version that this binary needs.
pub fn version() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Creates or upgrades the schema, the read models and the tables of codes. Safe to repeat. Gives
/// the versions before and after.
pub async fn migrate(connection: &mut PgConnection) -> Result<(i64, i64), Error> {
    let before = found(connection).await?.unwrap_or(0);
    if before > version() {
        return Err(Error::Newer {
            found: before,
            known: version(),
        });
    }
    MIGRATIONS.run(&mut *connection).await?;
    let mut db_tx = connection.begin().await?;
    // One at a time: two grants on one table at once are an error. MILLRACE, as bytes.
    sqlx::raw_sql("select pg_advisory_xact_lock(x'4d494c4c52414345'::bigint)")
        .execute(&mut *db_tx)
        .await?;
    sqlx::raw_sql("grant select on _sqlx_migrations to millrace_writer")
        .execute(&mut *db_tx)
        .await?;
    fill_codes(&mut db_tx).await?;
    db_tx.commit().await?;
    millrace_readmodels::install(connection).await?;
    Ok((before, version()))
}

/// The same, and the database serves these partitions alone: a new one from the first moment on.
pub async fn migrate_to_serve(
    connection: &mut PgConnection,
    served: &Served,
) -> Result<(i64, i64), Error> {
    // The migration that creates the table fills it with this.
    sqlx::query("select set_config('millrace.served', $1, false)")
        .bind(served.literal())
        .execute(&mut *connection)
        .await?;
    let versions = migrate(connection).await?;
    served::set(connection, served).await?;
    Ok(versions)
}

/// Whether the database is at this binary's version.
pub async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    match found(connection).await? {
        None => Err(Error::NotMigrated),
        Some(found) if found < version() => Err(Error::Older {
            found,
            known: version(),
        }),
        Some(found) if found > version() => Err(Error::Newer {
            found,
            known: version(),
        }),
        Some(_) => Ok(()),
    }
}

async fn found(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
        .fetch_one(connection)
        .await
}

/// What the codes in the columns of verdicts and reasons mean: column, code, name.
pub(crate) fn codes() -> Vec<(&'static str, i16, &'static str)> {
    let mut codes = vec![("verdict", 0, "posted")];
    codes.extend(Reason::ALL.map(|reason| ("verdict", reason.code(), reason.as_str())));
    codes.extend(ParkReason::ALL.map(|reason| ("parked", reason.code(), reason.as_str())));
    codes
}

async fn fill_codes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let reasons = codes();
    sqlx::query!(
        "insert into millrace.reasons (kind, code, name)
         select * from unnest($1::text[], $2::smallint[], $3::text[])
         on conflict (kind, code) do update set name = excluded.name",
        &reasons.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>() as _,
        &reasons.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(),
        &reasons.iter().map(|(.., name)| *name).collect::<Vec<_>>() as _
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "insert into millrace.currencies (currency, exponent)
         select * from unnest($1::text[], $2::int[])
         on conflict (currency) do update set exponent = excluded.exponent",
        &Currency::all().map(Currency::code).collect::<Vec<_>>() as _,
        &Currency::all()
            .map(|c| i32::try_from(c.exponent()).unwrap_or(0))
            .collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}
