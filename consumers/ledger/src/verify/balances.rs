//! Balances against the ledger, and debits against credits.

use sqlx::PgConnection;

use crate::verify::{NAMED_MAX, Report};

/// Slices against the ledger, and per currency debits against credits.
pub(super) async fn compare_balances(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let differing = sqlx::query!(
        r#"select account as "account!", currency as "currency!", partition as "partition!",
             case when b.debits is null then 'nothing' else concat('debits ', b.debits, ', credits ',
                 b.credits, ', ', b.transactions, ' transactions, the last at ', b.last_occurred_at) end
                 as "stored!",
             case when l.debits is null then 'nothing' else concat('debits ', l.debits, ', credits ',
                 l.credits, ', ', l.transactions, ' transactions, the last at ', l.last_occurred_at) end
                 as "computed!"
         from (
             select account, currency, partition, sum(debit) as debits, sum(credit) as credits,
                 count(*) as transactions, max(occurred_at) as last_occurred_at
             from millrace.ledger, lateral (values
                 (debit_account, amount, 0::bigint), (credit_account, 0::bigint, amount)
             ) side(account, debit, credit)
             where verdict = 0
             group by account, currency, partition
         ) l
         full join (
             select account, currency, partition, sum(debits) as debits, sum(credits) as credits,
                 sum(transactions) as transactions, max(last_occurred_at) as last_occurred_at
             from millrace.balances group by account, currency, partition
         ) b using (account, currency, partition)
         where (b.debits, b.credits, b.transactions, b.last_occurred_at)
             is distinct from (l.debits, l.credits, l.transactions, l.last_occurred_at)
         order by account, currency, partition
         limit $1"#,
        i64::try_from(NAMED_MAX).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in differing {
        report.find(
            "balances",
            format!(
                "account {}, {}, partition {}",
                row.account, row.currency, row.partition
            ),
            format!(
                "the slice has {}; the ledger says {}",
                row.stored, row.computed
            ),
        );
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
