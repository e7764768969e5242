-- The ledger's state. Everything that a batch changes is changed in one database transaction, and no
-- row is written by two partitions.

-- Roles belong to the whole server: another database may have created them already, or be doing so.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['millrace_migrator', 'millrace_writer', 'millrace_reader'] loop
        begin
            if not exists (select from pg_roles where rolname = wanted) then
                execute format('create role %I nologin', wanted);
            end if;
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
    if not pg_has_role('millrace_migrator', 'member') then
        execute format('grant millrace_migrator to %I', current_user);
    end if;
end
$$;

-- The migrator owns everything; the writer can only add to the ledger; the reader sees only reports.
create schema millrace authorization millrace_migrator;
create schema reports authorization millrace_migrator;
set local role millrace_migrator;
set local search_path = millrace;

-- What the codes in verdict and reason columns mean; filled from the code by `millrace migrate`.
create table reasons (
    kind text collate "C" not null check (kind in ('verdict', 'parked')),
    code smallint not null,
    name text collate "C" not null,
    primary key (kind, code)
);

-- ISO 4217 currencies and how many decimal digits their minor unit has; filled by `millrace migrate`.
create table currencies (
    currency text collate "C" primary key,
    exponent integer not null
);

-- The log that this database applies: one topic of one cluster.
create table log (
    singleton boolean primary key default true check (singleton),
    topic text not null,
    cluster_id text,
    topic_id text,
    partitions integer not null check (partitions > 0),
    created_at timestamptz not null default now()
);

-- One row per partition: how far the database has applied the log. Locked by every batch.
create table positions (
    partition integer primary key,
    -- Goes up when an operator accepts a gap; start is where this incarnation began.
    incarnation integer not null default 1,
    start_offset bigint not null,
    -- The next log offset to apply.
    position bigint not null,
    next_seq bigint not null default 0,
    next_batch bigint not null default 0,
    chain_head bytea not null check (octet_length(chain_head) = 32),
    -- Goes up when a policy that this partition decides by changes.
    policy_version bigint not null default 0,
    parked_open bigint not null default 0 check (parked_open >= 0),
    -- The last applied record, to recognise a log that is another one.
    anchor_offset bigint,
    anchor_timestamp bigint,
    anchor_digest bytea,
    updated_at timestamptz not null,
    check (position >= start_offset)
) with (fillfactor = 50);

-- One row per batch and partition: the range of the log and what became of it.
create table batches (
    partition integer not null,
    batch bigint not null,
    incarnation integer not null,
    from_offset bigint not null,
    next_offset bigint not null,
    first_seq bigint not null,
    next_seq bigint not null,
    posted integer not null,
    duplicate integer not null,
    -- Rejected by a business rule: bound to their ids, rows of the ledger.
    rejected integer not null,
    -- Rejected without binding an id: rows of refused.
    refused integer not null,
    -- Less than zero in a batch that resolves parked records.
    parked integer not null,
    discarded integer not null default 0,
    -- Offsets without a record: control records, aborted transactions.
    skipped bigint not null,
    recorded_at timestamptz not null,
    chain_head bytea not null check (octet_length(chain_head) = 32),
    primary key (partition, batch),
    check (next_offset >= from_offset),
    check (next_offset - from_offset = posted + duplicate + rejected + refused + parked + discarded + skipped)
);

-- Every outcome that binds an id. Append-only.
create table ledger (
    seq bigint not null,
    log_offset bigint not null,
    amount bigint not null constraint ledger_amount check (amount between 1 and 1000000000000000),
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    partition integer not null,
    -- 0 posted, else the code of the reason.
    verdict smallint not null,
    id uuid not null,
    digest bytea not null,
    currency text collate "C" not null,
    debit_account text collate "C" not null,
    credit_account text collate "C" not null,
    kind text collate "C" not null,
    source text collate "C" not null,
    reference text collate "C",
    metadata jsonb,
    constraint ledger_pkey primary key (partition, seq),
    constraint ledger_id_key unique (id)
);
-- An account's transactions, by either side.
create index ledger_debit_account on ledger (debit_account);
create index ledger_credit_account on ledger (credit_account);

-- What was rejected without binding an id: invalid, misrouted, id_conflict. Append-only.
create table refused (
    partition integer not null,
    seq bigint not null,
    log_offset bigint not null,
    reason smallint not null,
    detail text not null,
    recorded_at timestamptz not null,
    record_timestamp bigint,
    key bytea,
    value bytea,
    headers bytea not null,
    -- As far as the record could be read.
    id uuid,
    debit_account text collate "C",
    credit_account text collate "C",
    amount bigint,
    currency text collate "C",
    occurred_at timestamptz,
    primary key (partition, seq)
);
create index refused_id on refused (id) where id is not null;

-- What waits for an operator, byte for byte. Append-only: resolutions are rows of their own.
-- headers: for each one, 4 bytes of length and the name, 4 bytes of length (-1: null) and the value.
create table parked (
    partition integer not null,
    seq bigint not null,
    log_offset bigint not null,
    reason smallint not null,
    detail text not null,
    recorded_at timestamptz not null,
    record_timestamp bigint,
    key bytea,
    value bytea,
    headers bytea not null,
    id uuid,
    primary key (partition, seq)
);
-- A hash index, because a Kafka key may be longer than a btree entry.
create index parked_key on parked using hash (key);
create index parked_id on parked (id) where id is not null;

create table parked_resolutions (
    partition integer not null,
    seq bigint not null,
    parked_seq bigint not null,
    resolution text not null check (resolution in ('replayed', 'discarded')),
    reason text not null,
    operator text not null,
    recorded_at timestamptz not null,
    primary key (partition, seq),
    unique (partition, parked_seq),
    foreign key (partition, parked_seq) references parked (partition, seq)
);

-- Debits and credits of an account, one slice per partition that has moved it. Written in every batch.
create table balances (
    account text collate "C" not null,
    currency text collate "C" not null,
    partition integer not null,
    transactions bigint not null,
    last_occurred_at timestamptz not null,
    debits numeric not null,
    credits numeric not null,
    constraint balances_pkey primary key (account, currency, partition)
) with (fillfactor = 80);

-- Accounts that are not open.
create table account_statuses (
    account text collate "C" primary key,
    status text collate "C" not null check (status in ('frozen', 'closed')),
    set_by text not null default session_user,
    set_at timestamptz not null default now()
);

-- Overdraft limits in minor units; null is unlimited. Account '*': the default for all others;
-- currency '*': every currency without a row of its own.
create table overdraft_limits (
    account text collate "C" not null,
    currency text collate "C" not null,
    overdraft_limit bigint check (overdraft_limit >= 0),
    set_by text not null default session_user,
    set_at timestamptz not null default now(),
    primary key (account, currency)
);

-- What the owner of a partition last said of it, each second. Not part of any batch.
create table partition_status (
    partition integer primary key,
    owner text not null,
    state text collate "C" not null,
    detail text not null,
    -- Null where it is not known.
    log_start bigint,
    log_end bigint,
    oldest_unapplied_at timestamptz,
    updated_at timestamptz not null
) with (fillfactor = 50);

-- The read models and how far each has folded each partition: [0, seq) is in its table.
create table read_models (
    model text collate "C" primary key,
    mode text collate "C" not null check (mode in ('inline', 'background')),
    -- What folding it was measured to cost.
    cost text not null
);
create table read_model_positions (
    model text collate "C" not null references read_models,
    partition integer not null,
    seq bigint not null default 0,
    failed_at timestamptz,
    error text,
    updated_at timestamptz not null default now(),
    primary key (model, partition)
) with (fillfactor = 50);

-- Append-only holds for the owner too.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'millrace.% is append-only', tg_table_name using errcode = 'restrict_violation';
end
$$;
create trigger append_only before update or delete or truncate on ledger
    for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on refused
    for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on parked
    for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on parked_resolutions
    for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on batches
    for each statement execute function refuse_change();

grant usage on schema millrace to millrace_writer;
grant select on all tables in schema millrace to millrace_writer;
grant insert on ledger, refused, parked, parked_resolutions, batches to millrace_writer;
grant insert, update on log, positions, balances, partition_status, read_model_positions to millrace_writer;
grant insert, update, delete on account_statuses, overdraft_limits to millrace_writer;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
