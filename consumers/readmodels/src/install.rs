//! The models' tables, views and grants.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::model::{self, Model};

/// Creates what is missing of every read model, and brings its view up to date. Safe to repeat and to
/// run twice at once. For a connection that is not in a transaction and may act as
/// `millrace_migrator`, after the migrations. A model that is new to a running system starts at 0
/// and is caught up by the background workers.
pub async fn install(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut db_tx = connection.begin().await?;
    // The lock lets one installation at a time through; the models' rows stay readable.
    sqlx::raw_sql(
        "set local role millrace_migrator;
         set local search_path = millrace;
         lock table read_models in share row exclusive mode",
    )
    .execute(&mut *db_tx)
    .await?;
    for model in model::all() {
        install_one(&mut db_tx, model).await?;
    }
    sqlx::raw_sql("grant select on all tables in schema reports to millrace_reader")
        .execute(&mut *db_tx)
        .await?;
    db_tx.commit().await
}

async fn install_one(connection: &mut PgConnection, model: &Model) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "{}{}grant select, insert, update on {} to millrace_writer",
        model.table, model.view, model.name
    )))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into read_models (model, mode, cost) values ($1, $2, $3)
         on conflict (model) do update set mode = excluded.mode, cost = excluded.cost",
    )
    .bind(model.name)
    .bind(model.mode.as_str())
    .bind(model.cost)
    .execute(connection)
    .await?;
    Ok(())
}
