//! Balances against the ledger, and debits against credits.

use sqlx::PgConnection;

use crate::verify::{NAMED_MAX, Report};

/// Slices against the ledger, and per currency debits against credits.
pub(super) async fn compare_balances(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    // A thread is whole when the rows that are named, and the slice's last one, are all rows of the slice: each row
    // names an earlier one, one names none, and the sums of their hashes say that each is named once.
    let differing = sqlx::query!(
        r#"select account as "account!", currency as "currency!", partition as "partition!",
             case when b.debits is null then 'nothing' else concat('debits ', b.debits, ', credits ',
                 b.credits, ', ', b.transactions, ' transactions, the last at ', b.last_occurred_at,
                 ', last_seq ', b.last_seq) end as "stored!",
             case when l.debits is null then 'nothing' else concat('debits ', l.debits, ', credits ',
                 l.credits, ', ', l.transactions, ' transactions, the last at ', l.last_occurred_at,
                 ', last_seq ', l.last_seq) end as "computed!",
             coalesce(l.is_thread, true) as "is_thread!"
         from (
             select account, currency, partition, sum(debit) as debits, sum(credit) as credits,
                 count(*) as transactions, max(occurred_at) as last_occurred_at, max(seq) as last_seq,
                 count(*) - count(previous) = 1
                     and coalesce(bool_and(previous < seq), true)
                     and sum(hashint8extended(seq, 0)) - coalesce(sum(hashint8extended(previous, 0)), 0)
                         = hashint8extended(max(seq), 0) as is_thread
             from millrace.ledger, lateral (values
                 (debit_account, amount, 0::bigint, debit_previous),
                 (credit_account, 0::bigint, amount, credit_previous)
             ) side(account, debit, credit, previous)
             where verdict = 0
             group by account, currency, partition
         ) l
         full join (
             select account, currency, partition, sum(debits) as debits, sum(credits) as credits,
                 sum(transactions) as transactions, max(last_occurred_at) as last_occurred_at,
                 max(last_seq) as last_seq
             from millrace.balances group by account, currency, partition
         ) b using (account, currency, partition)
         where (b.debits, b.credits, b.transactions, b.last_occurred_at, b.last_seq, true)
             is distinct from (l.debits, l.credits, l.transactions, l.last_occurred_at, l.last_seq, l.is_thread)
         order by account, currency, partition
         limit $1"#,
        i64::try_from(NAMED_MAX).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in differing {
        let place = format!(
            "account {}, {}, partition {}",
            row.account, row.currency, row.partition
        );
        if row.stored == row.computed && !row.is_thread {
            let what = "its rows do not name each other one after the other (debit_previous, credit_previous)";
            report.find("threads", place, what.into());
        } else {
            let what = format!(
                "the slice has {}; the ledger says {}",
                row.stored, row.computed
            );
            report.find("balances", place, what);
        }
    }
    let uneven = sqlx::query!(
        r#"select currency, sum(debits)::text as "debits!", sum(credits)::text as "credits!"
         from millrace.balances group by currency having sum(debits) <> sum(credits)"#
    )
    .fetch_all(connection)
    .await?;
    for row in uneven {
        report.find(
            "debits equal credits",
            format!("currency {}", row.currency),
            format!("debits are {}, credits {}", row.debits, row.credits),
        );
    }
    Ok(())
}
