//! Schema `reports`: comments, indexes, and what the views say.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::ledger::fill;
use crate::scratch::in_scratch;

async fn texts(connection: &mut PgConnection, select: &'static str) -> Vec<String> {
    sqlx::query_scalar(select)
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn execute(connection: &mut PgConnection, statements: &'static str) {
    sqlx::raw_sql(statements).execute(connection).await.unwrap();
}

#[tokio::test]
async fn every_view_and_every_column_has_a_comment() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        let silent = texts(
            &mut connection,
            "select concat_ws('.', c.relname, a.attname) from pg_class c
             left join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0
             where c.relnamespace = 'reports'::regnamespace
                 and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)",
        )
        .await;
        assert_eq!(silent, [""; 0]);
        let views = texts(
            &mut connection,
            "select viewname::text from pg_views where schemaname = 'reports' order by 1",
        )
        .await;
        assert_eq!(
            views,
            [
                "account_days",
                "account_partitions",
                "account_transactions",
                "balances",
                "batches",
                "conservation",
                "daily_totals",
                "flows",
                "freshness",
                "parked",
                "positions",
                "read_model_freshness",
                "rejections",
                "served",
                "transactions"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn every_amount_has_its_exponent_beside_it() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        let bare = texts(
            &mut connection,
            "select distinct table_name::text from information_schema.columns a
             where table_schema = 'reports'
                 and column_name in ('amount', 'debits', 'credits', 'balance', 'amount_min', 'amount_max')
                 and not exists (select from information_schema.columns e where e.table_schema = 'reports'
                     and e.table_name = a.table_name and e.column_name = 'exponent')",
        )
        .await;
        assert_eq!(bare, [""; 0]);
    })
    .await;
}

/// Where rows are looked for by index, and by which one: conditions on reports, and those that the ledger, `verify` and
/// `parked` send to the tables. All that docs/capacity.md says of indexes.
const LOOK_UPS: &[(&str, &str)] = &[
    (
        "reports.transactions where id = '0192f5a8-7b1e-7c3a-9f00-5a1d2c3b4e5f'",
        "ledger_id_key",
    ),
    (
        "reports.transactions where partition = 1 and seq > 5",
        "ledger_pkey",
    ),
    (
        "reports.account_transactions where account = 'a'",
        "balances_pkey",
    ),
    (
        "reports.account_transactions where account = 'a'",
        "ledger_pkey",
    ),
    (
        "reports.account_partitions where account = 'a'",
        "balances_pkey",
    ),
    ("reports.balances where account = 'a'", "balances_pkey"),
    (
        "reports.rejections where recorded_at > now()",
        "ledger_rejected",
    ),
    (
        "reports.rejections where recorded_at > now()",
        "refused_recorded_at",
    ),
    ("reports.parked where key = 'a'", "parked_key"),
    ("reports.conservation where partition = 1", "batches_pkey"),
    (
        "reports.daily_totals where day = '2024-01-01'",
        "daily_totals_pkey",
    ),
    (
        "reports.account_days where account = 'a' and day > '2024-01-01'",
        "account_days_pkey",
    ),
    ("reports.flows where debit_account = 'a'", "flows_pkey"),
    (
        "reports.batches where recorded_at > now()",
        "batches_recorded_at",
    ),
    (
        "reports.rejections where id = '0192f5a8-7b1e-7c3a-9f00-5a1d2c3b4e5f'",
        "refused_id",
    ),
    (
        "reports.parked where id = '0192f5a8-7b1e-7c3a-9f00-5a1d2c3b4e5f'",
        "parked_id",
    ),
    (
        "millrace.batches where partition = 0 and batch = 5",
        "batches_pkey",
    ),
    (
        "millrace.ledger where partition = 0 and seq >= 5 and seq < 9",
        "ledger_pkey",
    ),
    (
        "millrace.refused where partition = 0 and seq >= 5 and seq < 9",
        "refused_pkey",
    ),
    (
        "millrace.parked where partition = 0 and seq >= 5 and seq < 9",
        "parked_pkey",
    ),
    (
        "millrace.parked where partition = 0 and key = 'a'",
        "parked_key",
    ),
    (
        "millrace.parked_resolutions where partition = 0 and parked_seq = 5",
        "parked_resolutions_partition_parked_seq_key",
    ),
    (
        "millrace.parked_resolutions where partition = 0 and seq >= 5 and seq < 9",
        "parked_resolutions_pkey",
    ),
];

/// The indexes of tables that grow: each costs every transaction that it covers.
const GROWING: &str = "select indexrelname::text from pg_stat_user_indexes
     where schemaname = 'millrace' and relname in ('ledger', 'refused', 'parked', 'parked_resolutions', 'batches',
         'balances', 'daily_totals', 'account_days', 'flows')
     order by 1";

#[tokio::test]
async fn conditions_reach_the_indexes_and_none_is_there_for_nothing() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        execute(&mut connection, "set enable_seqscan = off").await;
        for (query, index) in LOOK_UPS {
            let explain = format!("explain (costs off) select * from {query}");
            let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let line = plan.iter().position(|line| line.contains(index));
            let is_condition = line.is_some_and(|line| {
                plan[line..]
                    .iter()
                    .take(2)
                    .any(|l| l.contains("Index Cond"))
            });
            assert!(is_condition, "{query}: {}", plan.join("\n"));
        }
        let mut used: Vec<_> = LOOK_UPS.iter().map(|(_, index)| *index).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(texts(&mut connection, GROWING).await, used);
    })
    .await;
}

#[tokio::test]
async fn transactions_are_the_posted_ones_and_rejections_the_others() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 2, 0, 100).await;
        execute(
            &mut connection,
            "insert into refused values (0, 5, 15, 13, 'known with other content', now(), null, 'k', 'v', '',
                 gen_random_uuid(), 'a', 'b', 5, 'XXX', now())",
        )
        .await;
        let rejections = texts(
            &mut connection,
            "select concat_ws('|', reason, detail, coalesce(exponent::text, '-'), count(*)) from reports.rejections
             where currency <> 'JPY' or reason <> 'insufficient_funds'
             group by reason, detail, exponent order by 1",
        )
        .await;
        let all: Vec<i64> = sqlx::query_scalar(
            "select count(*) from reports.transactions union all select count(*) from reports.rejections
             union all select count(*) from ledger
             union all select count(*) from reports.transactions where exponent is distinct from
                 case currency when 'EUR' then 2 when 'JPY' then 0 end",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(all[0] + all[1], all[2] + 1);
        assert_eq!(all[3], 0);
        assert_eq!(rejections[0], "id_conflict|known with other content|-|1");
        assert!(rejections[1].starts_with("insufficient_funds|2|"), "{rejections:?}");
    })
    .await;
}

#[tokio::test]
async fn balances_add_up_the_slices() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        execute(
            &mut connection,
            "insert into balances values
                 ('a', 'EUR', 0, 2, '2024-01-02Z', 10000000000000000000, 1, 0),
                 ('a', 'EUR', 1, 3, '2024-01-03Z', 0, 5, 0),
                 ('a', 'JPY', 1, 1, '2024-01-01Z', 0, 7, 0);
             set timezone = 'UTC'",
        )
        .await;
        let balances = texts(
            &mut connection,
            "select concat_ws('|', account, currency, exponent, debits, credits, balance, transactions,
                 last_occurred_at::date) from reports.balances order by currency",
        )
        .await;
        assert_eq!(
            balances,
            [
                "a|EUR|2|10000000000000000000|6|-9999999999999999994|5|2024-01-03",
                "a|JPY|0|0|7|7|1|2024-01-01"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn parked_records_show_their_bytes_and_resolution() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        execute(
            &mut connection,
            "insert into parked (partition, seq, log_offset, reason, detail, recorded_at, key, value, headers)
                 values (0, 1, 11, 3, 'not Avro', now(), '\\x61ff', '\\x00', ''),
                     (0, 2, 12, 3, 'not Avro', now(), null, null, '');
             insert into parked_resolutions values (0, 9, 1, 'discarded', 'garbage', 'op', now())",
        )
        .await;
        let parked = texts(
            &mut connection,
            "select concat_ws('|', log_offset, coalesce(key_text, '-'), reason, coalesce(bytes::text, '-'),
                 coalesce(resolution, 'open'), operator) from reports.parked order by seq",
        )
        .await;
        assert_eq!(
            parked,
            ["11|a\\377|undecodable|\\x00|discarded|op", "12|-|undecodable|-|open"]
        );
    })
    .await;
}

#[tokio::test]
async fn conservation_holds_per_incarnation_and_shows_where_it_does_not() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        execute(
            &mut connection,
            "insert into positions (partition, incarnation, start_offset, position, next_seq, chain_head, updated_at)
                 values (0, 2, 500, 510, 20, sha256(''), now()), (1, 1, 7, 7, 0, sha256(''), now()),
                     (2, 1, 0, 11, 5, sha256(''), now());
             insert into batches values
                 (0, 0, 1, 100, 108, 0, 7, 3, 1, 1, 1, 1, 0, 1, now(), sha256('')),
                 (0, 1, 1, 108, 110, 7, 9, 2, 0, 0, 0, 0, 0, 0, now(), sha256('')),
                 (0, 2, 2, 500, 510, 9, 19, 10, 0, 0, 0, 0, 0, 0, now(), sha256('')),
                 (0, 3, 2, 510, 510, 19, 20, 0, 0, 0, 0, -1, 1, 0, now(), sha256('')),
                 (2, 0, 1, 0, 10, 0, 10, 10, 0, 0, 0, 0, 0, 0, now(), sha256(''));
             insert into partition_status (partition, owner, state, detail, log_end, updated_at) values
                 (0, 'lane', 'active', '', 530, now()), (1, 'lane', 'active', '', 5, now()),
                 (2, 'lane', 'active', '', 20, now() - interval '11 s')",
        )
        .await;
        let rows = texts(
            &mut connection,
            "select concat_ws('|', partition, incarnation, start_offset, position, posted, duplicate, rejected,
                 parked, discarded, records, skipped, holds, coalesce(not_yet_applied::text, '-'))
             from reports.conservation order by 1",
        )
        .await;
        assert_eq!(
            rows,
            [
                "0|1|100|110|5|1|2|1|0|9|1|t|-",
                "0|2|500|510|10|0|0|-1|1|10|0|t|20",
                "1|1|7|7|0|0|0|0|0|0|0|t|0",
                "2|1|0|11|10|0|0|0|0|10|0|f|-"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn freshness_tells_a_quiet_partition_from_an_unknown_one() {
    in_scratch(|scratch| async move {
        let mut connection = scratch.connect().await;
        fill(&mut connection, 4, 0, 10).await;
        execute(
            &mut connection,
            "begin;
             insert into partition_status values
                 (0, 'replica lane 0', 'active', '', 0, 25, now() - interval '90 s', now() - interval '1 s'),
                 (1, 'replica lane 1', 'active', '', 0, 10, null, now()),
                 (3, 'dead', 'active', '', 0, 10, null, now() - interval '11 s');
             insert into read_model_positions (model, partition, seq) values ('flows', 1, 10);",
        )
        .await;
        let core = texts(
            &mut connection,
            "select concat_ws('|', partition, position, coalesce(owner, '-'),
                 coalesce(lag_records::text, '-'), coalesce(oldest_unapplied_age_s::text, '-'),
                 coalesce(status_age_s::text, '-')) from reports.freshness order by 1",
        )
        .await;
        assert_eq!(
            core,
            ["0|10|replica lane 0|15|90.000|1.000", "1|10|replica lane 1|0|0.000|0.000", "2|10|-|-|-|-", "3|10|dead|-|-|11.000"]
        );
        let models = texts(
            &mut connection,
            "select concat_ws('|', partition, model, mode, position, next_seq, lag_seqs,
                 oldest_unfolded_at is null) from reports.read_model_freshness
             where model <> 'account_days' and partition < 2 order by 1",
        )
        .await;
        assert_eq!(
            models,
            [
                "0|daily_totals|inline|0|10|10|f",
                "0|flows|background|0|10|10|f",
                "1|daily_totals|inline|0|10|10|f",
                "1|flows|background|10|10|0|t"
            ]
        );
    })
    .await;
}
