-- Splits a ledger: copies the partitions that a new database serves out of one that had them, with everything that is
-- kept of them. The old one keeps its rows, which nothing deletes, and is read no more once all its partitions are
-- in new ones. In order:
--
--   1. stop every `millrace ledger` and `millrace project` of the old database, and start none again
--   2. for each new database: millrace migrate --partitions 0-5, and with the same version of millrace here
--      psql "$NEW_URL" -v host=old-db -v port=5432 -v dbname=millrace -v user=postgres -v password=secret \
--           -f infra/postgres/split.sql
--   3. for each: millrace verify --brokers .., which walks the copied chains from their first batch to the log
--   4. start its lanes, with --group and a name that no database has used
--
-- user: a login of the old database that may read schema millrace (a member of pg_read_all_data). Run as superuser.
-- All in one transaction: repeat it after a failure. Needs postgres_fdw, as federation.sql does.

\set ON_ERROR_STOP on
set client_min_messages = warning;
begin;
create extension if not exists postgres_fdw;
create server millrace_old foreign data wrapper postgres_fdw
    options (host :'host', port :'port', dbname :'dbname', fetch_size '10000');
create user mapping for current_user server millrace_old options (user :'user', password :'password');
create schema millrace_old;
import foreign schema millrace from server millrace_old into millrace_old;

create function pg_temp.copy_partitions() returns void language plpgsql as $$
declare
    served integer[] := (select partitions from millrace.served);
    copied text;
    columns text;
begin
    if served is null then
        raise exception 'this database serves all partitions: say which with millrace migrate --partitions';
    end if;
    if exists (select from millrace.log) or exists (select from millrace.positions) then
        raise exception 'this database is not new: a lane was here, or this script';
    end if;
    if (select max(version) from public._sqlx_migrations) is distinct from
            (select max(version) from millrace_old_public._sqlx_migrations) then
        raise exception 'the databases are not of the same schema version: run millrace migrate for both';
    end if;
    -- Another database than the old one, of the same topic.
    insert into millrace.log (topic, cluster_id, topic_id, partitions, created_at)
    select topic, cluster_id, topic_id, partitions, created_at from millrace_old.log;
    -- What has a partition is that partition's alone. What an owner last said is nobody's any more. A resolution
    -- refers to what was parked.
    for copied in
        select relname from pg_class c
        where relnamespace = 'millrace'::regnamespace and relkind in ('r', 'p') and relname <> 'partition_status'
            and exists (select from pg_attribute where attrelid = c.oid and attname = 'partition')
        order by relname = 'parked_resolutions', relname
    loop
        select string_agg(quote_ident(attname), ', ' order by attnum) into columns
        from pg_attribute
        where attrelid = format('millrace.%I', copied)::regclass and attnum > 0 and not attisdropped;
        execute format('insert into millrace.%I (%s) select %s from millrace_old.%I where partition = any ($1)',
            copied, columns, columns, copied) using served;
    end loop;
    -- What holds for accounts holds everywhere.
    insert into millrace.account_statuses select * from millrace_old.account_statuses;
    insert into millrace.overdraft_limits select * from millrace_old.overdraft_limits;
end
$$;
create schema millrace_old_public;
import foreign schema public limit to (_sqlx_migrations) from server millrace_old into millrace_old_public;
select pg_temp.copy_partitions() \g /dev/null
drop schema millrace_old, millrace_old_public cascade;
drop server millrace_old cascade;
commit;
analyze;
