//! The proof, from the tables alone: nothing was lost, counted twice or changed.
//!
//! One snapshot of the database (repeatable read), beside live load. Per partition the batches must
//! follow each other without a gap, every `seq` must have its row, every digest must be that of its
//! row's content, and the chain over all of it must lead to the stored heads. Then balances are
//! compared with the ledger, debits with credits, and each read model with its fold.

use std::collections::VecDeque;

use millrace_rules::{Reason, Verdict};
use millrace_schemas::{Transaction, Wire};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::chain::{self, Chain, GENESIS, Head, Numbers};
use crate::store::Micros;

/// How many rows are in memory at a time.
const ROWS_MAX: i64 = 20_000;

/// How many places of one kind are named.
const NAMED_MAX: i64 = 10;

/// One place where the proof fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// Partition, batch, seq, account: where to look.
    pub place: String,
    /// What is there and what should be.
    pub detail: String,
}

/// What was checked and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Partitions walked.
    pub partitions: usize,
    /// Batches whose chain was computed again.
    pub batches: u64,
    /// Rows whose digest or bytes went into it.
    pub rows: u64,
    /// Read models compared with their folds.
    pub read_models: usize,
    /// Every failure; empty is the proof.
    pub findings: Vec<Finding>,
}

/// Checks everything. `progress` is called with the report so far, about once per 20,000 rows.
pub async fn verify(
    connection: &mut PgConnection,
    mut progress: impl FnMut(&Report),
) -> Result<Report, sqlx::Error> {
    let mut report = Report::default();
    let mut snapshot = connection.begin().await?;
    sqlx::raw_sql("set transaction isolation level repeatable read read only")
        .execute(&mut *snapshot)
        .await?;
    let ends = sqlx::query_as!(
        End,
        "select partition, position, start_offset, incarnation, next_seq, next_batch, chain_head,
             parked_open
         from millrace.positions order by partition"
    )
    .fetch_all(&mut *snapshot)
    .await?;
    for end in &ends {
        walk(&mut snapshot, end, &mut report, &mut progress).await?;
        report.partitions += 1;
    }
    compare_balances(&mut snapshot, &mut report).await?;
    progress(&report);
    snapshot.commit().await?;
    for difference in millrace_readmodels::verify(connection).await? {
        report.findings.push(Finding {
            check: "read model",
            place: difference.place(),
            detail: difference.to_string(),
        });
    }
    report.read_models = millrace_readmodels::all().len();
    Ok(report)
}

/// A partition's row in `positions`.
struct End {
    partition: i32,
    position: i64,
    start_offset: i64,
    incarnation: i32,
    next_seq: i64,
    next_batch: i64,
    chain_head: Vec<u8>,
    parked_open: i64,
}

/// Where the walk through a partition is.
struct Walk {
    partition: i32,
    head: Head,
    next_seq: i64,
    next_batch: i64,
    incarnation: i32,
    next_offset: Option<i64>,
    parked_open: i64,
}

async fn walk(
    connection: &mut PgConnection,
    end: &End,
    report: &mut Report,
    progress: &mut impl FnMut(&Report),
) -> Result<(), sqlx::Error> {
    let mut walk = Walk {
        partition: end.partition,
        head: GENESIS,
        next_seq: 0,
        next_batch: 0,
        incarnation: 0,
        next_offset: None,
        parked_open: 0,
    };
    while walk.next_batch < end.next_batch {
        let batches = read_batches(connection, &walk).await?;
        let Some(last) = batches.last() else {
            report.find("batches", &walk, "the batch is missing".into());
            return Ok(());
        };
        let mut rows = Rows::read(connection, &walk, last.numbers.next_seq).await?;
        for batch in &batches {
            if let Err(detail) = walk.step(batch, &mut rows, report) {
                report.find("chain", &walk, detail);
                return Ok(());
            }
        }
        progress(report);
    }
    let stored = (
        end.next_seq,
        end.position,
        end.incarnation,
        end.parked_open,
        &end.chain_head[..],
    );
    let position = walk.next_offset.unwrap_or(end.start_offset);
    let incarnation = if walk.incarnation == 0 {
        end.incarnation
    } else {
        walk.incarnation
    };
    let walked = (
        walk.next_seq,
        position,
        incarnation,
        walk.parked_open,
        &walk.head[..],
    );
    if stored != walked {
        let detail = format!(
            "the position's (next seq, position, incarnation, open parked, chain head) is {stored:?}, \
             the batches lead to {walked:?}"
        );
        report.find("positions", &walk, detail);
    }
    Ok(())
}

impl Report {
    fn find(&mut self, check: &'static str, walk: &Walk, detail: String) {
        let place = format!(
            "partition {}, batch {}, seq {}",
            walk.partition, walk.next_batch, walk.next_seq
        );
        self.findings.push(Finding {
            check,
            place,
            detail,
        });
    }
}

impl Walk {
    /// One batch: its numbers, its rows, its head.
    fn step(&mut self, batch: &Batch, rows: &mut Rows, report: &mut Report) -> Result<(), String> {
        let numbers = &batch.numbers;
        if numbers.batch != self.next_batch || numbers.first_seq != self.next_seq {
            return Err(format!(
                "batch {} begins at seq {}",
                numbers.batch, numbers.first_seq
            ));
        }
        let continues = self.next_offset == Some(numbers.from_offset);
        if self.incarnation == numbers.incarnation && !continues {
            return Err(format!(
                "the batch begins at offset {}, the one before ended at {:?}",
                numbers.from_offset, self.next_offset
            ));
        }
        let mut chain = Chain::after(&self.head);
        let mut counted = Numbers {
            posted: 0,
            rejected: 0,
            refused: 0,
            // Resolutions of parked records lower the count; they have rows of their own kind.
            parked: 0,
            ..*numbers
        };
        while self.next_seq < numbers.next_seq {
            rows.add(self.next_seq, &mut chain, &mut counted)?;
            self.next_seq += 1;
            report.rows += 1;
        }
        if counted != *numbers {
            return Err(format!(
                "the rows count as {counted:?}, the batch says {numbers:?}"
            ));
        }
        let head = chain.close(numbers);
        if head[..] != batch.chain_head[..] {
            return Err("the rows and counts do not lead to the stored chain head".into());
        }
        self.head = head;
        self.next_batch += 1;
        self.next_offset = Some(numbers.next_offset);
        self.incarnation = numbers.incarnation;
        self.parked_open += i64::from(numbers.parked);
        report.batches += 1;
        Ok(())
    }
}

/// A row of `batches`.
struct Batch {
    numbers: Numbers,
    chain_head: Vec<u8>,
}

/// The next batches, together at most [`ROWS_MAX`] rows, at least one batch.
async fn read_batches(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<Vec<Batch>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select partition, batch, incarnation, from_offset, next_offset, first_seq, next_seq,
             posted, duplicate, rejected, refused, parked, discarded, skipped,
             recorded_at as "recorded_at: Micros", chain_head
         from millrace.batches
         where partition = $1 and batch >= $2 and batch < $2 + 1000
             and (batch = $2 or next_seq <= $3)
         order by batch"#,
        walk.partition,
        walk.next_batch,
        walk.next_seq + ROWS_MAX
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Batch {
            numbers: Numbers {
                partition: row.partition,
                batch: row.batch,
                incarnation: row.incarnation,
                from_offset: row.from_offset,
                next_offset: row.next_offset,
                first_seq: row.first_seq,
                next_seq: row.next_seq,
                posted: row.posted,
                duplicate: row.duplicate,
                rejected: row.rejected,
                refused: row.refused,
                parked: row.parked,
                discarded: row.discarded,
                skipped: row.skipped,
                recorded_at: row.recorded_at.0,
            },
            chain_head: row.chain_head,
        })
        .collect())
}

/// The rows of some batches, by `seq`, from the tables that may hold them.
struct Rows {
    ledger: VecDeque<LedgerRow>,
    refused: VecDeque<RawRow>,
    parked: VecDeque<RawRow>,
}

struct LedgerRow {
    seq: i64,
    log_offset: i64,
    amount: i64,
    occurred_at: Micros,
    recorded_at: Micros,
    verdict: i16,
    id: Uuid,
    digest: Vec<u8>,
    currency: String,
    debit_account: String,
    credit_account: String,
    kind: String,
    source: String,
    reference: Option<String>,
    metadata: Option<String>,
}

struct RawRow {
    seq: i64,
    log_offset: i64,
    reason: i16,
    detail: String,
    recorded_at: Micros,
    record_timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

impl Rows {
    async fn read(
        connection: &mut PgConnection,
        walk: &Walk,
        next_seq: i64,
    ) -> Result<Self, sqlx::Error> {
        let (partition, first_seq) = (walk.partition, walk.next_seq);
        let ledger = sqlx::query_as!(
            LedgerRow,
            r#"select seq, log_offset, amount, occurred_at as "occurred_at: Micros",
                 recorded_at as "recorded_at: Micros", verdict, id, digest, currency, debit_account,
                 credit_account, kind, source, reference, metadata::text as metadata
             from millrace.ledger
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(&mut *connection)
        .await?;
        let refused = sqlx::query_as!(
            RawRow,
            r#"select seq, log_offset, reason, detail, recorded_at as "recorded_at: Micros",
                 record_timestamp, key, value, headers
             from millrace.refused
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(&mut *connection)
        .await?;
        let parked = sqlx::query_as!(
            RawRow,
            r#"select seq, log_offset, reason, detail, recorded_at as "recorded_at: Micros",
                 record_timestamp, key, value, headers
             from millrace.parked
             where partition = $1 and seq >= $2 and seq < $3 order by seq"#,
            partition,
            first_seq,
            next_seq
        )
        .fetch_all(connection)
        .await?;
        Ok(Self {
            ledger: ledger.into(),
            refused: refused.into(),
            parked: parked.into(),
        })
    }

    /// Adds the row with this `seq` to the chain and the counts.
    fn add(&mut self, seq: i64, chain: &mut Chain, counted: &mut Numbers) -> Result<(), String> {
        if let Some(row) = self.ledger.pop_front_if(|row| row.seq == seq) {
            row.check()?;
            chain.ledger(&row.for_chain());
            match row.verdict()? {
                Verdict::Posted => counted.posted += 1,
                _ => counted.rejected += 1,
            }
        } else if let Some(row) = self.refused.pop_front_if(|row| row.seq == seq) {
            chain.refused(&row.for_chain());
            counted.refused += 1;
        } else if let Some(row) = self.parked.pop_front_if(|row| row.seq == seq) {
            chain.parked(&row.for_chain());
            counted.parked += 1;
        } else {
            return Err("no table has the row".into());
        }
        Ok(())
    }
}

impl LedgerRow {
    fn verdict(&self) -> Result<Verdict, String> {
        match self.verdict {
            0 => Ok(Verdict::Posted),
            code => Reason::from_code(code)
                .filter(|reason| reason.binds_id())
                .map(Verdict::Rejected)
                .ok_or_else(|| {
                    format!("the row's verdict is {code}, which is none of the ledger's")
                }),
        }
    }

    /// The stored digest must be that of the stored content.
    fn check(&self) -> Result<(), String> {
        let metadata = match &self.metadata {
            None => Ok(millrace_schemas::wire::Metadata::default()),
            Some(text) => serde_json::from_str(text),
        };
        let wire = Wire {
            id: self.id.to_string().into(),
            kind: self.kind.as_str().into(),
            debit_account: self.debit_account.as_str().into(),
            credit_account: self.credit_account.as_str().into(),
            amount: self.amount,
            currency: self.currency.as_str().into(),
            occurred_at: self.occurred_at.0,
            reference: self.reference.as_deref().unwrap_or_default().into(),
            source: self.source.as_str().into(),
            metadata: metadata.map_err(|error| format!("the row's metadata: {error}"))?,
        };
        let transaction = Transaction::try_from(wire)
            .map_err(|(_, invalid)| format!("the row is no valid transaction: {invalid}"))?;
        if transaction.digest()[..] == self.digest[..] {
            Ok(())
        } else {
            Err(format!(
                "the content of transaction {} is not what its digest says",
                self.id
            ))
        }
    }

    fn for_chain(&self) -> chain::LedgerRow<'_> {
        chain::LedgerRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            verdict: self.verdict,
            digest: &self.digest,
        }
    }
}

impl RawRow {
    fn for_chain(&self) -> chain::RawRow<'_> {
        chain::RawRow {
            seq: self.seq,
            log_offset: self.log_offset,
            recorded_at: self.recorded_at.0,
            reason: self.reason,
            detail: &self.detail,
            record_timestamp: self.record_timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

/// Slices against the ledger, and per currency debits against credits.
async fn compare_balances(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let differing = sqlx::query!(
        r#"select account as "account!", currency as "currency!", partition as "partition!",
             coalesce(b.debits, 0)::text as "debits!", coalesce(b.credits, 0)::text as "credits!",
             coalesce(b.transactions, 0) as "transactions!",
             coalesce(l.debits, 0)::text as "ledger_debits!",
             coalesce(l.credits, 0)::text as "ledger_credits!",
             coalesce(l.transactions, 0) as "ledger_transactions!"
         from (
             select account, currency, partition, sum(debit) as debits, sum(credit) as credits,
                 count(*) as transactions, max(occurred_at) as last_occurred_at
             from millrace.ledger, lateral (values
                 (debit_account, amount, 0::bigint), (credit_account, 0::bigint, amount)
             ) side(account, debit, credit)
             where verdict = 0
             group by account, currency, partition
         ) l
         full join millrace.balances b using (account, currency, partition)
         where (b.debits, b.credits, b.transactions, b.last_occurred_at)
             is distinct from (l.debits, l.credits, l.transactions, l.last_occurred_at)
         order by account, currency, partition
         limit $1"#,
        NAMED_MAX
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in differing {
        report.findings.push(Finding {
            check: "balances",
            place: format!(
                "account {}, {}, partition {}",
                row.account, row.currency, row.partition
            ),
            detail: format!(
                "the slice has debits {}, credits {}, {} transactions; the ledger says {}, {}, {}",
                row.debits,
                row.credits,
                row.transactions,
                row.ledger_debits,
                row.ledger_credits,
                row.ledger_transactions
            ),
        });
    }
    let uneven = sqlx::query!(
        r#"select currency, sum(debits)::text as "debits!", sum(credits)::text as "credits!"
         from millrace.balances group by currency having sum(debits) <> sum(credits)"#
    )
    .fetch_all(connection)
    .await?;
    for row in uneven {
        report.findings.push(Finding {
            check: "debits equal credits",
            place: format!("currency {}", row.currency),
            detail: format!("debits are {}, credits {}", row.debits, row.credits),
        });
    }
    Ok(())
}
