//! A copy of a database, changed as its superuser can.

use millrace_ledger::chain::{Chain, GENESIS, LedgerRow, Numbers, RawRow, Readable, ResolutionRow};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::place::Place;
use crate::process::Ended;

/// A copy of a place's database; its topic is the same.
pub struct Copy {
    url: String,
}

impl Copy {
    /// Copies it. Nobody may be connected to it.
    pub async fn of(place: &Place) -> Self {
        let original = place.database_url();
        let (server, name) = original.rsplit_once('/').unwrap();
        let copy = format!("it-copy-{}", Uuid::new_v4().simple());
        place
            .execute_at_server(&format!("create database \"{copy}\" template \"{name}\""))
            .await;
        Self {
            url: format!("{server}/{copy}"),
        }
    }

    /// A connection as the superuser, for whom no trigger fires.
    pub async fn connect(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let settings = "set session_replication_role = replica; set search_path = millrace";
        sqlx::raw_sql(settings)
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// Runs statements.
    pub async fn change(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut self.connect().await)
            .await
            .unwrap();
    }

    /// Runs a tool on the copy.
    pub async fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        let mut command = place.command(arguments);
        command.env("DATABASE_URL", &self.url);
        place.start_command(command, arguments[0]).end().await
    }
}

/// Computes the chain of a partition anew from whatever its rows are now, as somebody could who knows how.
pub async fn rewrite_chain(connection: &mut PgConnection, partition: i32) {
    let batches = "select *, (extract(epoch from recorded_at) * 1000000)::bigint as at
                   from batches where partition = $1 order by batch";
    let batches = sqlx::query(batches)
        .bind(partition)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let mut head = GENESIS;
    for batch in batches {
        let numbers = Numbers {
            partition,
            batch: batch.get("batch"),
            incarnation: batch.get("incarnation"),
            from_offset: batch.get("from_offset"),
            next_offset: batch.get("next_offset"),
            first_seq: batch.get("first_seq"),
            next_seq: batch.get("next_seq"),
            posted: batch.get("posted"),
            duplicate: batch.get("duplicate"),
            rejected: batch.get("rejected"),
            refused: batch.get("refused"),
            parked: batch.get("parked"),
            discarded: batch.get("discarded"),
            skipped: batch.get("skipped"),
            recorded_at: batch.get("at"),
        };
        let mut chain = Chain::after(&head);
        for seq in numbers.first_seq..numbers.next_seq {
            add_row(connection, &mut chain, partition, seq).await;
        }
        head = chain.close(&numbers);
        sqlx::query("update batches set chain_head = $3 where partition = $1 and batch = $2")
            .bind(partition)
            .bind(numbers.batch)
            .bind(&head[..])
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    sqlx::query("update positions set chain_head = $2 where partition = $1")
        .bind(partition)
        .bind(&head[..])
        .execute(connection)
        .await
        .unwrap();
}

async fn add_row(connection: &mut PgConnection, chain: &mut Chain, partition: i32, seq: i64) {
    for table in ["ledger", "refused", "parked", "parked_resolutions"] {
        let occurred_at = match table {
            "ledger" | "refused" => "occurred_at",
            _ => "null::timestamptz",
        };
        let query = format!(
            "select *, (extract(epoch from recorded_at) * 1000000)::bigint as at,
                 (extract(epoch from {occurred_at}) * 1000000)::bigint as occurred
             from {table} where partition = $1 and seq = $2"
        );
        let found = sqlx::query(AssertSqlSafe(query))
            .bind(partition)
            .bind(seq)
            .fetch_optional(&mut *connection)
            .await
            .unwrap();
        let Some(row) = found else {
            continue;
        };
        let id = |row: &PgRow| row.get::<Option<Uuid>, _>("id").map(Uuid::into_bytes);
        match table {
            "ledger" => chain.ledger(&LedgerRow {
                seq,
                log_offset: row.get("log_offset"),
                recorded_at: row.get("at"),
                verdict: row.get("verdict"),
                digest: row.get("digest"),
            }),
            "refused" => chain.refused(&raw(seq, &row), &readable(id(&row), &row)),
            "parked" => chain.parked(&raw(seq, &row), id(&row)),
            _ => chain.resolution(&ResolutionRow {
                seq,
                parked_seq: row.get("parked_seq"),
                recorded_at: row.get("at"),
                is_discarded: row.get::<&str, _>("resolution") == "discarded",
                reason: row.get("reason"),
                operator: row.get("operator"),
            }),
        }
        return;
    }
    panic!("no table has seq {seq} of partition {partition}");
}

fn raw(seq: i64, row: &PgRow) -> RawRow<'_> {
    RawRow {
        seq,
        log_offset: row.get("log_offset"),
        recorded_at: row.get("at"),
        reason: row.get("reason"),
        detail: row.get("detail"),
        record_timestamp: row.get("record_timestamp"),
        key: row.get("key"),
        value: row.get("value"),
        headers: row.get("headers"),
    }
}

fn readable(id: Option<[u8; 16]>, row: &PgRow) -> Readable<'_> {
    Readable {
        id,
        debit_account: row.get("debit_account"),
        credit_account: row.get("credit_account"),
        amount: row.get("amount"),
        currency: row.get("currency"),
        occurred_at: row.get("occurred"),
    }
}
