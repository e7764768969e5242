//! The proof, from the tables alone: nothing was lost, counted twice or changed.
//!
//! One snapshot of the database (repeatable read), beside live load. Per partition the batches must
//! follow each other without a gap, every `seq` must have its row, every digest must be that of its
//! row's content, and the chain over all of it must lead to the stored heads. Then balances are
//! compared with the ledger, debits with credits, and each read model with its fold.

mod rows;

use sqlx::{Connection as _, PgConnection};

use crate::chain::{Chain, GENESIS, Head, Numbers};
use crate::verify::rows::{Batch, Rows, read_batches, unaccounted};

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
    for (table, partition, number) in unaccounted(&mut snapshot, NAMED_MAX).await? {
        let what = if table == "batches" { "batch" } else { "seq" };
        report.findings.push(Finding {
            check: "unaccounted rows",
            place: format!("partition {partition}, {what} {number}"),
            detail: format!("no batch accounts for this row of {table}"),
        });
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
    /// Where the incarnation began.
    start_offset: Option<i64>,
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
        start_offset: None,
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
        if let Err(detail) = rows.finish() {
            report.find("chain", &walk, detail);
        }
        progress(report);
    }
    let stored = (
        end.next_seq,
        end.position,
        end.start_offset,
        end.incarnation,
        end.parked_open,
        &end.chain_head[..],
    );
    let position = walk.next_offset.unwrap_or(end.start_offset);
    let (incarnation, start_offset) = match walk.start_offset {
        // No batch yet.
        None => (end.incarnation, end.start_offset),
        Some(start) => (walk.incarnation, start),
    };
    let walked = (
        walk.next_seq,
        position,
        start_offset,
        incarnation,
        walk.parked_open,
        &walk.head[..],
    );
    if stored != walked {
        let detail = format!(
            "the position's (next seq, position, start, incarnation, open parked, chain head) is {stored:?}, \
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
            // Resolutions of parked records lower the count.
            parked: 0,
            discarded: 0,
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
        if self.start_offset.is_none() || self.incarnation != numbers.incarnation {
            self.start_offset = Some(numbers.from_offset);
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
