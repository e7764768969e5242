//! The stored slices against a fold from nothing.

use std::fmt;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::fold::{self, Range};
use crate::model::{self, Model};
use crate::plan::FOLD_SEQS_MAX;

/// How many differences are named per model.
const DIFFERENCES_MAX: usize = 10;

/// A slice that is not what the ledger says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The model.
    pub model: &'static str,
    /// The partition of the slice.
    pub partition: i32,
    /// The slice's key as JSON, or what else of the partition differs.
    pub key: String,
    /// What is stored, as JSON; `None`: nothing.
    pub stored: Option<String>,
    /// What the ledger says, as JSON; `None`: there should be nothing.
    pub computed: Option<String>,
}

impl Difference {
    /// Model, partition and key: where to look.
    pub fn place(&self) -> String {
        format!("{}, partition {}, {}", self.model, self.partition, self.key)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = self.stored.as_deref().unwrap_or("nothing");
        let computed = self.computed.as_deref().unwrap_or("nothing");
        write!(f, "stored is {stored}, the ledger says {computed}")
    }
}

/// What came of comparing the models with the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The first differences of each model.
    pub differences: Vec<Difference>,
    /// How many stored outcomes are not in a model yet, of those models that are behind.
    pub behind: Vec<(&'static str, i64)>,
}

/// Folds every model again over what it has folded, into temporary tables, and compares. One snapshot, beside
/// live load; for a connection that is not in a transaction and may create temporary tables, which take as
/// much room as the models.
pub async fn verify(connection: &mut PgConnection) -> Result<Verified, sqlx::Error> {
    let mut snapshot = connection.begin().await?;
    sqlx::raw_sql(
        "set transaction isolation level repeatable read;
         set local search_path = pg_temp, millrace;
         set local jit = off",
    )
    .execute(&mut *snapshot)
    .await?;
    let mut verified = Verified::default();
    for model in model::all() {
        let differences = verify_one(&mut snapshot, model).await?;
        verified.differences.extend(differences);
        let behind = behind(&mut snapshot, model).await?;
        if behind > 0 {
            verified.behind.push((model.name, behind));
        }
    }
    // The temporary tables go with it.
    snapshot.rollback().await?;
    Ok(verified)
}

async fn verify_one(
    connection: &mut PgConnection,
    model: &Model,
) -> Result<Vec<Difference>, sqlx::Error> {
    let keys = keys(connection, model).await?;
    if keys.is_empty() {
        // Slices may be there twice, and nothing can be folded into a table like that.
        return Ok(vec![Difference {
            model: model.name,
            partition: 0,
            key: "primary key".into(),
            stored: None,
            computed: Some("each slice once".into()),
        }]);
    }
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create temporary table {name} (like millrace.{name} including indexes)",
        name = model.name
    )))
    .execute(&mut *connection)
    .await?;
    let mut differences = Vec::new();
    let positions: Vec<(i32, i64, i64)> = sqlx::query_as(
        "select m.partition, m.seq, coalesce(p.next_seq, 0)
         from read_model_positions m left join positions p on p.partition = m.partition
         where m.model = $1 order by m.partition",
    )
    .bind(model.name)
    .fetch_all(&mut *connection)
    .await?;
    for (partition, seq, next_seq) in positions {
        if seq > next_seq {
            differences.push(Difference {
                model: model.name,
                partition,
                key: "position".into(),
                stored: Some(seq.to_string()),
                computed: Some(format!("at most {next_seq}")),
            });
        }
        fold_again(connection, model, partition, seq).await?;
    }
    differences.extend(compare(connection, model, &keys).await?);
    differences.truncate(DIFFERENCES_MAX);
    Ok(differences)
}

/// How many stored outcomes are not in the model yet.
async fn behind(connection: &mut PgConnection, model: &Model) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(sum(greatest(p.next_seq - coalesce(m.seq, 0), 0)), 0)::bigint
         from positions p
         left join read_model_positions m on m.partition = p.partition and m.model = $1",
    )
    .bind(model.name)
    .fetch_one(connection)
    .await
}

/// Folds `[0, end)` into the temporary table, in ranges that bound the memory.
async fn fold_again(
    connection: &mut PgConnection,
    model: &Model,
    partition: i32,
    end: i64,
) -> Result<(), sqlx::Error> {
    let mut from_seq = 0;
    while from_seq < end {
        let next_seq = end.min(from_seq + FOLD_SEQS_MAX);
        let range = Range {
            partition,
            from_seq,
            next_seq,
        };
        fold::fold(connection, model, &[range]).await?;
        from_seq = next_seq;
    }
    Ok(())
}

/// The columns of the model's primary key, quoted.
async fn keys(connection: &mut PgConnection, model: &Model) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select quote_ident(a.attname)
         from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
         where i.indrelid = $1::regclass and i.indisprimary
         order by array_position(i.indkey::int2[], a.attnum)",
    )
    .bind(format!("millrace.{}", model.name))
    .fetch_all(connection)
    .await
}

/// Stored against computed, both ways.
async fn compare(
    connection: &mut PgConnection,
    model: &Model,
    keys: &[String],
) -> Result<Vec<Difference>, sqlx::Error> {
    let pairs: Vec<_> = keys.iter().map(|key| format!("'{key}', {key}")).collect();
    let rows: Vec<(i32, String, Option<String>, Option<String>)> =
        sqlx::query_as(AssertSqlSafe(format!(
            "select partition, json_build_object({pairs})::text, to_jsonb(stored)::text,
                 to_jsonb(computed)::text
             from millrace.{name} stored
             full join pg_temp.{name} computed using ({keys})
             where stored::record is distinct from computed::record
             limit {DIFFERENCES_MAX}",
            name = model.name,
            keys = keys.join(", "),
            pairs = pairs.join(", "),
        )))
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(partition, key, stored, computed)| Difference {
            model: model.name,
            partition,
            key,
            stored,
            computed,
        })
        .collect())
}
