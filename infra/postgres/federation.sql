-- Reads over a ledger that is split over several databases: schema `reports` of all of them as one, in a database
-- of its own. Run it there once for each of them, as superuser, and again after `millrace migrate`:
--
--   psql "$FEDERATION_URL" -v member=a -v host=db-1 -v port=5432 -v dbname=millrace \
--        -v user=analyst -v password=secret -f infra/postgres/federation.sql
--
--   member    a short name of its own: the foreign tables are in schema ledger_<member>
--   user      a login of that database in role millrace_reader; password may be '' where none is asked for
--
-- Every partition must be in one of them: `select * from reports.members`.
--
-- What to know: each database answers as of its own moment, there is no snapshot over all; what is asked of one
-- account, id or partition goes to the databases as such and is as quick there as ever; the databases are asked at the
-- same time; one that is away fails the query. Needs postgres_fdw, which comes with Postgres (Debian: the package
-- postgresql-15 and the like).

\set ON_ERROR_STOP on
set client_min_messages = warning;
begin;
create extension if not exists postgres_fdw;

select 'ledger_' || :'member' as member_schema \gset
select format('create schema %I', :'member_schema')
where not exists (select from pg_namespace where nspname = :'member_schema') \gexec
select format('create server %I foreign data wrapper postgres_fdw', :'member_schema')
where not exists (select from pg_foreign_server where srvname = :'member_schema') \gexec

-- Options are replaced as a whole: what was set before may be another host.
select format('alter server %I options (%s)', :'member_schema', string_agg(format('drop %I', name), ', '))
from pg_foreign_server s, lateral (select split_part(option, '=', 1) as name from unnest(s.srvoptions) option) o
where s.srvname = :'member_schema' having count(*) > 0 \gexec
alter server :"member_schema" options (
    host :'host', port :'port', dbname :'dbname', fetch_size '10000', async_capable 'true'
);
drop user mapping if exists for current_user server :"member_schema";
create user mapping for current_user server :"member_schema" options (user :'user', password :'password');

-- The views go with the tables that they are made of, and are made anew below; not those that others made of them.
select format('drop foreign table %I.%I cascade', foreign_table_schema, foreign_table_name)
from information_schema.foreign_tables where foreign_table_schema = :'member_schema' \gexec
import foreign schema reports from server :"member_schema" into :"member_schema";

-- The reports over all members. What is kept per partition is laid together, what is summed up is summed up
-- once more.
create schema if not exists reports;
create function pg_temp.make_reports() returns void language plpgsql as $$
declare
    report text;
    members text;
    summed text;
begin
    for report, summed in
        select * from (values
            ('transactions', null),
            ('rejections', null),
            ('parked', null),
            ('conservation', null),
            ('freshness', null),
            ('read_model_freshness', null),
            ('positions', null),
            ('batches', null),
            ('balances', 'account, currency, exponent, sum(debits) as debits, sum(credits) as credits,
                sum(balance) as balance, sum(transactions)::bigint as transactions,
                max(last_occurred_at) as last_occurred_at
                group by account, currency, exponent'),
            ('account_days', 'account, currency, exponent, day, sum(debits) as debits, sum(credits) as credits,
                sum(transactions)::bigint as transactions
                group by account, currency, exponent, day'),
            ('flows', 'debit_account, credit_account, currency, exponent, month,
                sum(transactions)::bigint as transactions, sum(amount) as amount
                group by debit_account, credit_account, currency, exponent, month'),
            ('daily_totals', 'day, currency, exponent, kind, sum(transactions)::bigint as transactions,
                sum(amount) as amount, min(amount_min) as amount_min, max(amount_max) as amount_max
                group by day, currency, exponent, kind')
        ) reports(report, summed)
    loop
        select string_agg(format('select * from %I.%I', foreign_table_schema, foreign_table_name), ' union all '
                order by foreign_table_schema)
        into strict members
        from information_schema.foreign_tables
        where foreign_table_schema like 'ledger\_%' and foreign_table_name = report;
        execute format('drop view if exists reports.%I', report);
        execute format('create view reports.%I as select %s from (%s) members %s', report,
            coalesce(split_part(summed, 'group by', 1), '*'), members, substring(summed from 'group by.*'));
    end loop;
    -- Each partition must be in one member, or the reports above lie.
    select string_agg(format('select %L as member, * from %I.served', substr(nspname, 8), nspname), ' union all '
            order by nspname)
    into strict members from pg_namespace where nspname like 'ledger\_%';
    drop view if exists reports.members;
    execute format('create view reports.members as %s', members);
end
$$;
select pg_temp.make_reports() \g /dev/null

-- Whoever reads them needs no login of the members: the views read as their owner.
select 'create role millrace_reader nologin' where not exists (select from pg_roles where rolname = 'millrace_reader') \gexec
grant usage on schema reports to millrace_reader;
grant select on all tables in schema reports to millrace_reader;
commit;
