//! What gives the rows their meaning and guards them: codes, exponents, keys and triggers.

use millrace_rules::Currency;
use sqlx::PgConnection;

use crate::store::schema::codes;
use crate::verify::Report;

/// Tables of which no row is ever changed.
const APPEND_ONLY: [&str; 6] = [
    "ledger",
    "refused",
    "parked",
    "parked_resolutions",
    "batches",
    "incarnations",
];

/// Compares with what `millrace migrate` has made of them.
pub(super) async fn compare(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let codes = codes();
    let changed = sqlx::query!(
        r#"select kind as "kind!", code as "code!", w.name as "name!", r.name as "found?"
         from unnest($1::text[], $2::smallint[], $3::text[]) w(kind, code, name)
         left join millrace.reasons r using (kind, code)
         where r.name is distinct from w.name order by 1, 2"#,
        &codes.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>() as _,
        &codes.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(),
        &codes.iter().map(|(.., name)| *name).collect::<Vec<_>>() as _
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in changed {
        let found = row.found.as_deref().unwrap_or("nothing");
        report.find(
            "schema",
            format!("table reasons, {} {}", row.kind, row.code),
            format!("it is {found}, and should be {}", row.name),
        );
    }
    let changed = sqlx::query!(
        r#"select w.currency as "currency!", w.exponent as "exponent!", c.exponent as "found?"
         from unnest($1::text[], $2::int[]) w(currency, exponent)
         left join millrace.currencies c using (currency)
         where c.exponent is distinct from w.exponent order by 1"#,
        &Currency::all().map(Currency::code).collect::<Vec<_>>() as _,
        &Currency::all()
            .map(|c| i32::try_from(c.exponent()).unwrap_or(0))
            .collect::<Vec<_>>()
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in changed {
        let found = row
            .found
            .map_or("nothing".into(), |found| found.to_string());
        report.find(
            "schema",
            format!("table currencies, {}", row.currency),
            format!("the exponent is {found}, and should be {}", row.exponent),
        );
    }
    find_unguarded(connection, report).await
}

/// Tables whose rows could be changed, or be there twice.
async fn find_unguarded(
    connection: &mut PgConnection,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let append_only: Vec<_> = APPEND_ONLY.map(str::to_owned).into();
    let unguarded = sqlx::query!(
        r#"select w.name as "table!", 'nothing refuses changes of its rows' as "what!"
         from unnest($1::text[]) w(name)
         where not exists (
             select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
             where t.tgrelid = to_regclass('millrace.' || w.name) and t.tgname = 'append_only'
                 -- Before update, delete or truncate, for each statement, whatever it is.
                 and t.tgenabled in ('O', 'A') and t.tgtype = 2 + 8 + 16 + 32 and t.tgqual is null
                 and p.oid = to_regprocedure('millrace.refuse_change()') and p.prosrc ~ 'raise exception')
         union all
         select c.relname::text, 'it has no primary key'
         from pg_class c
         where c.relnamespace = 'millrace'::regnamespace and c.relkind in ('r', 'p') and not exists (
             select from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid)
         union all
         select 'ledger', 'no index keeps its ids unique'
         where not exists (
             select from pg_index i
             join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'id'
             where i.indrelid = to_regclass('millrace.ledger') and i.indisunique and i.indisvalid
                 and i.indnkeyatts = 1 and i.indkey[0] = a.attnum and i.indpred is null)
         order by 1, 2"#,
        &append_only
    )
    .fetch_all(connection)
    .await?;
    for row in unguarded {
        report.find("schema", format!("table {}", row.table), row.what);
    }
    Ok(())
}
