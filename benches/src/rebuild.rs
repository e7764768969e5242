//! Folding read models from nothing, over a whole ledger.
//!
//! A model is emptied and put back to `seq` 0 by SQL, in the run's own database: there is no command for it.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::case::Case;
use crate::checks;
use crate::drain::{UNFOLDED, wait};
use crate::load::Load;
use crate::meter::Services;
use crate::record::{Fold, Rebuild};
use crate::run::{Bench, checkpoint, now};
use crate::scratch::Scratch;

/// `--workers` of the folds: as many as there are cores gain, and one to compare with.
const WORKERS: [u32; 2] = [1, 2];

/// What the models came to.
#[derive(sqlx::FromRow)]
struct Tables {
    slices: i64,
    size_bytes: i64,
}

impl Bench {
    /// Drains without background workers, then folds each model alone and the background models together.
    pub async fn rebuild(&self, case: &Case, scratch: &Scratch) -> anyhow::Result<Rebuild> {
        let parameters = &case.parameters;
        let mut load = Load::new(parameters)?;
        let mut connection = self.open(parameters, &load, scratch).await?;
        let existing = load.grow(parameters)?;
        self.fill(&existing, load.before(), parameters, scratch)
            .await?;
        let measured = parameters.measured();
        self.fill(&measured, load.count(), parameters, scratch)
            .await?;

        let rows = sqlx::query_scalar("select sum(next_seq)::bigint from millrace.positions")
            .fetch_one(&mut connection)
            .await?;
        let sets = sets(&models(&mut connection).await?);
        let mut folds = Vec::new();
        for workers in WORKERS {
            for models in &sets {
                reset(&mut connection, models).await?;
                checkpoint(&mut connection).await?;
                let fold = self
                    .fold(models, workers, rows, scratch, &mut connection)
                    .await?;
                folds.push(fold);
            }
        }
        // Every model has been folded in full by now: its slices are proven with all the rest.
        let mut failures = checks::failures(&mut connection, parameters, &load).await?;
        let verified = self.tool(&["verify"], scratch).await;
        failures.extend(verified.err().map(|failure| format!("{failure:#}")));
        Ok(Rebuild {
            at: now(&mut connection).await?,
            case: case.clone(),
            rows,
            folds,
            failures,
            conditions: self.conditions.clone(),
        })
    }

    /// Runs `millrace project` until nothing is left to fold.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    async fn fold(
        &self,
        models: &[String],
        workers: u32,
        rows: i64,
        scratch: &Scratch,
        connection: &mut PgConnection,
    ) -> anyhow::Result<Fold> {
        let start = self.meter.read(connection, &Services::default()).await?;
        let arguments = ["project", "--workers", &workers.to_string()].map(str::to_owned);
        let name = format!("{}-project", scratch.name);
        let service = self
            .millrace
            .start(&name, &arguments, &scratch.environment())?;
        let mut services = Services {
            project: Some(service),
            ..Services::default()
        };
        wait(connection, &mut services, UNFOLDED, 0).await?;
        let end = self.meter.read(connection, &services).await?;
        if let Some(project) = services.project.take() {
            project.stop().await?;
        }
        let tables = tables(connection, models).await?;
        let seconds = end.seconds_since(&start);
        let per_row = |micros: u64| micros as f64 / rows as f64;
        Ok(Fold {
            models: models.to_vec(),
            workers,
            seconds,
            rows_per_s: rows as f64 / seconds,
            postgres_us: end.postgres_since(&start).map(per_row),
            postgres_project_us: end.postgres_project.map(per_row),
            project_us: per_row(end.project),
            wal_bytes: (end.wal_bytes - start.wal_bytes) as f64 / rows as f64,
            slices: tables.slices,
            size_bytes: tables.size_bytes,
            others_percent: end.others_percent_since(&start, self.conditions.cores),
        })
    }
}

/// The installed models: name and mode.
async fn models(connection: &mut PgConnection) -> anyhow::Result<Vec<(String, String)>> {
    let models = sqlx::query_as("select model, mode from millrace.read_models order by model");
    Ok(models.fetch_all(connection).await?)
}

/// Each model alone, then those of the background together.
fn sets(models: &[(String, String)]) -> Vec<Vec<String>> {
    let mut sets: Vec<_> = models.iter().map(|(name, _)| vec![name.clone()]).collect();
    let background = models.iter().filter(|(_, mode)| mode == "background");
    let background: Vec<_> = background.map(|(name, _)| name.clone()).collect();
    if background.len() > 1 {
        sets.push(background);
    }
    sets
}

/// Empties these models; the others count as folded. All are due at once, the pace of background folds
/// notwithstanding.
async fn reset(connection: &mut PgConnection, models: &[String]) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        "truncate {}",
        qualified(models).join(", ")
    )))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into millrace.read_model_positions as f (model, partition, seq, updated_at)
         select m.model, p.partition, case when m.model = any($1) then 0 else p.next_seq end,
             now() - interval '1 hour'
         from millrace.read_models m cross join millrace.positions p
         on conflict (model, partition) do update
             set seq = excluded.seq, updated_at = excluded.updated_at",
    )
    .bind(models)
    .execute(connection)
    .await?;
    Ok(())
}

async fn tables(connection: &mut PgConnection, models: &[String]) -> anyhow::Result<Tables> {
    let each = qualified(models).into_iter().map(|table| {
        format!(
            "select count(*) as slices, pg_total_relation_size('{table}') as size_bytes from {table}"
        )
    });
    let each: Vec<_> = each.collect();
    let tables = sqlx::query_as(AssertSqlSafe(format!(
        "select sum(slices)::bigint as slices, sum(size_bytes)::bigint as size_bytes from ({}) t",
        each.join(" union all ")
    )));
    Ok(tables.fetch_one(connection).await?)
}

/// The tables. The names are the binary's own: letters and underscores.
fn qualified(models: &[String]) -> Vec<String> {
    let each = models.iter().map(|model| format!("millrace.{model}"));
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_folded_alone_and_those_of_the_background_together() {
        let models = [("a", "background"), ("b", "background"), ("c", "inline")]
            .map(|(name, mode)| (name.to_owned(), mode.to_owned()));
        let expected: [&[&str]; 4] = [&["a"], &["b"], &["c"], &["a", "b"]];
        assert_eq!(sets(&models), expected);
        assert_eq!(sets(&models[1..]), [["b"], ["c"]]);
    }
}
