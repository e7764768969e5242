//! Postgres behind the [`Store`] trait.
//!
//! **Lock order**: advisory locks of the partitions ascending, their rows in `positions` ascending,
//! then rows that belong to these partitions alone; the unique index on `ledger.id` comes after all
//! of them, and is the only place where two partitions can wait for each other.

use std::time::Duration;

use millrace_rules::Currency;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::kafka::log::Topic;
use crate::parking::Selection;
use crate::pipeline::outcome::Outcome;
use crate::store::copy::{COPY_LEDGER, COPY_PARKED, COPY_REFUSED, Rows};
use crate::store::error::{During, Error};
use crate::store::{
    Attached, LockWait, OpenParked, PartitionStatus, Policies, Position, Store, frozen, parked,
    read, schema, slices, small, socket, write,
};

/// No statement of a batch takes this long on a working database; beyond, the connection is given up.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(1);

/// Connecting, and the row that says how a partition is, take no longer on a database that works. Short,
/// because the lane does not poll meanwhile.
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a lane waits for the lock of a partition's other owner before it looks whether that one is frozen
/// and goes back to polling. Batches take less; what is one more try costs nothing.
pub(super) const OWNER_TIMEOUT: &str = "250ms";

/// How long it waits for any other lock: the row of a partition whose policies change, an id that another
/// partition is about to bind.
pub(super) const LOCK_TIMEOUT: &str = "1s";

/// The same where a lock is known to be held, and for the tables of read models.
pub(super) const LOCK_TIMEOUT_SHORT: &str = "200ms";

/// Becomes the writer, if the login may.
pub(super) const BECOME_WRITER: &str = "select set_config('role', 'millrace_writer', false) \
    where pg_has_role('millrace_writer', 'member')";

/// One connection, opened when it is needed.
pub struct Postgres {
    options: PgConnectOptions,
    owner: String,
    connection: Option<PgConnection>,
    opened: u64,
    in_transaction: bool,
    rows: Rows,
    /// The last batch could not be written: the next goes by the statements that tell more of failures.
    takes_long_way: bool,
    /// No inline read model is behind in the partitions of the last batch: they are folded without a savepoint.
    models_up_to_date: bool,
}

impl Postgres {
    /// Nothing is opened yet. `owner` is shown to people as the partitions' owner.
    pub fn new(options: PgConnectOptions, owner: String) -> Self {
        Self {
            options,
            owner,
            connection: None,
            opened: 0,
            in_transaction: false,
            rows: Rows::default(),
            takes_long_way: false,
            models_up_to_date: false,
        }
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        if self.connection.is_none() {
            self.in_transaction = false;
            let opened = tokio::time::timeout(SHORT_TIMEOUT, open(&self.options, &self.owner));
            let opened = opened
                .await
                .map_err(|_| Error::timeout("connecting", SHORT_TIMEOUT))??;
            self.connection = Some(opened);
            self.opened += 1;
        }
        Ok(self.connection.as_mut().expect("it was just opened"))
    }

    /// The connection of the transaction that [`Store::lock`] has begun.
    pub(super) fn transaction(&mut self) -> Result<&mut PgConnection, Error> {
        self.connection
            .as_mut()
            .ok_or_else(|| Error::Unavailable("the connection is gone".into()))
    }

    async fn write_rows(&mut self, outcome: &Outcome<'_>, buffer: &mut Rows) -> Result<(), Error> {
        let at = outcome.recorded_at;
        let is_small = small::fits(outcome) && !self.takes_long_way;
        let connection = self.transaction()?;
        let (ledger, refused, parked) = (&outcome.ledger, &outcome.refused, &outcome.parked);
        if is_small {
            small::write(connection, outcome).await?;
        } else {
            let slices = slices::add(connection, &outcome.balances, buffer).await?;
            let during = During::LedgerRows;
            write::copy(
                connection,
                COPY_LEDGER,
                during,
                ledger,
                buffer,
                |to, rows| {
                    to.ledger(rows, at, &slices);
                },
            )
            .await?;
        }
        let during = During::Other;
        write::copy(
            connection,
            COPY_REFUSED,
            during,
            refused,
            buffer,
            |to, rows| {
                to.refused(rows, at);
            },
        )
        .await?;
        write::copy(
            connection,
            COPY_PARKED,
            during,
            parked,
            buffer,
            |to, rows| {
                to.parked(rows, at);
            },
        )
        .await
    }
}

impl Error {
    fn timeout(doing: &str, limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::Unavailable(format!("{doing} took longer than {seconds} s"))
    }
}

/// Runs one step with a bound; a connection that hangs or is lost is dropped.
macro_rules! bounded {
    ($self:ident, $doing:literal, $step:expr) => {
        bounded!($self, $doing, STATEMENT_TIMEOUT, $step)
    };
    ($self:ident, $doing:literal, $limit:expr, $step:expr) => {{
        let result = tokio::time::timeout($limit, $step).await;
        let result = result.unwrap_or_else(|_| Err(Error::timeout($doing, $limit)));
        if matches!(result, Err(Error::Unavailable(_))) {
            $self.connection = None;
            $self.in_transaction = false;
        }
        result
    }};
}

impl Store for Postgres {
    async fn attach(&mut self, topic: &Topic, starts: &[(i32, i64)]) -> Result<Attached, Error> {
        bounded!(self, "reading the positions", SHORT_TIMEOUT, async {
            read::attach(self.connection().await?, topic, starts).await
        })
    }

    async fn lock(&mut self, partitions: &[i32], wait: LockWait) -> Result<Vec<Position>, Error> {
        let locked = bounded!(self, "locking", async {
            read::lock(self.connection().await?, partitions, wait).await
        });
        self.in_transaction = self.connection.is_some();
        locked
    }

    async fn known(&mut self, ids: &[[u8; 16]]) -> Result<Vec<([u8; 16], [u8; 32])>, Error> {
        bounded!(self, "looking up ids", async {
            read::known(self.transaction()?, ids).await
        })
    }

    async fn held(&mut self, keys: &[(i32, &[u8])]) -> Result<Vec<(i32, Vec<u8>)>, Error> {
        bounded!(self, "looking up held keys", async {
            read::held(self.transaction()?, keys).await
        })
    }

    async fn policies(&mut self, accounts: &[&str]) -> Result<Policies, Error> {
        bounded!(self, "reading policies", async {
            read::policies(self.transaction()?, accounts).await
        })
    }

    async fn funds(&mut self, accounts: &[(&str, Currency)]) -> Result<Vec<i128>, Error> {
        bounded!(self, "reading funds", async {
            read::funds(self.transaction()?, accounts).await
        })
    }

    async fn write(&mut self, outcome: &Outcome<'_>) -> Result<(), Error> {
        let written = bounded!(self, "writing a batch", async {
            let mut buffer = std::mem::take(&mut self.rows);
            let written = self.write_rows(outcome, &mut buffer).await;
            self.rows = buffer;
            written?;
            let connection = self.transaction()?;
            if !outcome.resolutions.is_empty() {
                write::resolutions(connection, &outcome.resolutions, outcome.recorded_at).await?;
            }
            write::advances(connection, &outcome.advances).await?;
            let at_once = std::mem::take(&mut self.models_up_to_date);
            let connection = self.transaction()?;
            self.models_up_to_date = at_once
                && write::fold_untroubled(connection, &outcome.advances).await?
                || write::fold_inline(self.transaction()?, &outcome.advances).await?;
            Ok(())
        });
        self.takes_long_way = written.is_err();
        written
    }

    async fn commit(&mut self) -> Result<(), Error> {
        bounded!(self, "committing", async {
            sqlx::raw_sql("commit").execute(self.transaction()?).await?;
            Ok(())
        })?;
        self.in_transaction = false;
        Ok(())
    }

    async fn end_frozen(&mut self, partitions: &[i32]) -> Result<bool, Error> {
        bounded!(self, "looking for a frozen owner", SHORT_TIMEOUT, async {
            frozen::end(self.connection().await?, partitions).await
        })
    }

    async fn open_parked(
        &mut self,
        partition: i32,
        selection: &Selection,
        after_seq: i64,
        records_max: usize,
    ) -> Result<Vec<OpenParked>, Error> {
        bounded!(self, "reading parked records", async {
            let transaction = self.transaction()?;
            parked::open(transaction, partition, selection, after_seq, records_max).await
        })
    }

    fn connections(&self) -> u64 {
        self.opened
    }

    async fn rollback(&mut self) {
        if !std::mem::take(&mut self.in_transaction) {
            return;
        }
        let done: Result<(), Error> = bounded!(self, "rolling back", async {
            sqlx::raw_sql("rollback")
                .execute(self.transaction()?)
                .await?;
            Ok(())
        });
        if done.is_err() {
            self.connection = None;
        }
    }

    async fn publish_status(&mut self, statuses: &[PartitionStatus]) -> Result<(), Error> {
        let owner = self.owner.clone();
        bounded!(
            self,
            "writing the partitions' status",
            SHORT_TIMEOUT,
            async { write::publish_status(self.connection().await?, &owner, statuses).await }
        )
    }
}

/// Opens a connection as the writer, if the login may become that role.
///
/// A lane reads by key alone, and its statements are planned once for the life of the connection. A
/// plan made while a table was empty would be a scan of all of it, and stay that until autovacuum looks
/// at the table a minute later; so scans and the joins that are made of them are switched off. Then there is one
/// good plan for each statement, whatever its values: planning them afresh cost as much as a small batch.
async fn open(options: &PgConnectOptions, owner: &str) -> Result<PgConnection, Error> {
    let options = options
        .clone()
        .application_name(&format!("millrace ledger {owner}"));
    let mut connection = PgConnection::connect_with(&options).await?;
    socket::send_at_once(options.get_port());
    schema::check(&mut connection)
        .await
        .map_err(|e| Error::Unavailable(e.to_string()))?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "{BECOME_WRITER};
         set search_path = millrace;
         set lock_timeout = '{LOCK_TIMEOUT}';
         set tcp_keepalives_idle = 10;
         set tcp_keepalives_interval = 5;
         set tcp_keepalives_count = 3;
         set jit = off;
         set enable_seqscan = off;
         set enable_hashjoin = off;
         set enable_mergejoin = off;
         set plan_cache_mode = force_generic_plan"
    )))
    .execute(&mut connection)
    .await?;
    Ok(connection)
}
