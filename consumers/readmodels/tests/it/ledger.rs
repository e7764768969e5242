//! A synthetic ledger, and the reports computed from it without SQL.

use std::collections::BTreeMap;

use sqlx::{FromRow, PgConnection};

/// Stored outcomes of which about one in ten is rejected and one in seventeen is not in the ledger
/// (refused or parked), over few accounts and days, so that slices meet. Some times are a moment
/// before and after midnight UTC; amounts add up beyond 64 bits.
pub(crate) async fn fill(connection: &mut PgConnection, partitions: i32, from: i64, to: i64) {
    sqlx::query(
        "insert into millrace.ledger
         select seq, 3 * seq, 1000000000000000 - (h & 1023),
             timestamptz '2024-02-28 23:59:59.999999Z' + (h % 40) * interval '1 hour' + (h & 1) * interval '1 us',
             now(), partition, case when seq % 11 = 0 then 40 else 0 end, gen_random_uuid(), '\\x00',
             (array['EUR', 'JPY'])[1 + h % 2], 'a' || h % 13, 'b' || h % 17,
             (array['card', 'fee', 'transfer'])[1 + h % 3], 'test', null, null
         from generate_series(0, $1 - 1) as partition, generate_series($2, $3 - 1) as seq,
             lateral (select abs(hashint8(seq * 31 + partition))::bigint as h) hashed
         where seq % 17 <> 5",
    )
    .bind(partitions)
    .bind(from)
    .bind(to)
    .execute(&mut *connection)
    .await
    .unwrap();
    sqlx::query(
        "insert into millrace.positions (partition, start_offset, position, next_seq, chain_head, updated_at)
         select p, 0, $2, $2, sha256(''), now() from generate_series(0, $1 - 1) as p
         on conflict (partition) do update set position = excluded.position, next_seq = excluded.next_seq",
    )
    .bind(partitions)
    .bind(to)
    .execute(connection)
    .await
    .unwrap();
}

/// The three reports, each row as text: key and measures.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reports {
    daily_totals: BTreeMap<String, [i128; 4]>,
    account_days: BTreeMap<String, [i128; 3]>,
    flows: BTreeMap<String, [i128; 2]>,
}

#[derive(FromRow)]
struct Posted {
    day: String,
    currency: String,
    kind: String,
    debit_account: String,
    credit_account: String,
    amount: i64,
}

/// What the reports must say, computed here from the raw rows.
pub(crate) async fn expected(connection: &mut PgConnection) -> Reports {
    // The day is cut out of the text of the time in UTC: nothing is shared with the folds.
    let rows: Vec<Posted> = sqlx::query_as(
        "select left(to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), 10) as day, currency,
             kind, debit_account, credit_account, amount
         from millrace.ledger where verdict = 0",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let mut reports = Reports::default();
    for row in rows {
        let Posted {
            day,
            currency,
            kind,
            debit_account,
            credit_account,
            ..
        } = &row;
        let amount = i128::from(row.amount);
        let totals = reports
            .daily_totals
            .entry(format!("{day} {currency} {kind}"))
            .or_insert([0, 0, amount, amount]);
        totals[0] += 1;
        totals[1] += amount;
        totals[2] = totals[2].min(amount);
        totals[3] = totals[3].max(amount);
        for (account, debit, credit) in [(debit_account, amount, 0), (credit_account, 0, amount)] {
            let key = format!("{account} {currency} {day}");
            let days = reports.account_days.entry(key).or_default();
            days[0] += debit;
            days[1] += credit;
            days[2] += 1;
        }
        let month = format!("{}-01", &day[..7]);
        let key = format!("{debit_account} {credit_account} {currency} {month}");
        let flow = reports.flows.entry(key).or_default();
        flow[0] += 1;
        flow[1] += amount;
    }
    reports
}

/// What the reports say.
pub(crate) async fn reported(connection: &mut PgConnection) -> Reports {
    let daily_totals: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select concat_ws(' ', day, currency, kind), array[transactions, amount, amount_min, amount_max]::text[]
         from reports.daily_totals",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let account_days: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select concat_ws(' ', account, currency, day), array[debits, credits, transactions]::text[]
         from reports.account_days",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let flows: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select concat_ws(' ', debit_account, credit_account, currency, month), array[transactions, amount]::text[]
         from reports.flows",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    Reports {
        daily_totals: parsed(daily_totals),
        account_days: parsed(account_days),
        flows: parsed(flows),
    }
}

fn parsed<const N: usize>(rows: Vec<(String, Vec<String>)>) -> BTreeMap<String, [i128; N]> {
    let measures = |texts: Vec<String>| -> [i128; N] {
        let numbers: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    };
    let count = rows.len();
    let parsed: BTreeMap<_, _> = rows
        .into_iter()
        .map(|(key, m)| (key, measures(m)))
        .collect();
    assert_eq!(parsed.len(), count, "every key is one row");
    parsed
}
