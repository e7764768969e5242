-- What debezium-equal writes to: the columns, keys and indexes of Millrace's ledger (consumers/ledger/migrations), and
-- balances and daily totals of the same shape, kept by a trigger. There are no roles and no append-only triggers.
create table transactions (
    seq bigint not null,
    log_offset bigint not null,
    amount bigint not null check (amount between 1 and 1000000000000000),
    occurred_at timestamptz not null,
    recorded_at timestamptz not null default now(),
    partition integer not null,
    -- Nothing here decides: every row is posted.
    verdict smallint not null default 0,
    id uuid not null unique,
    -- As wide as Millrace's. Nothing here computes one.
    digest bytea not null default decode(repeat('00', 32), 'hex'),
    currency text collate "C" not null,
    debit_account text collate "C" not null,
    credit_account text collate "C" not null,
    kind text collate "C" not null,
    source text collate "C" not null,
    reference text collate "C",
    metadata jsonb,
    primary key (partition, seq)
);
create index on transactions (debit_account);
create index on transactions (credit_account);
create index on transactions (recorded_at) where verdict <> 0;

create table balances (
    account text collate "C" not null,
    currency text collate "C" not null,
    partition integer not null,
    transactions bigint not null,
    last_occurred_at timestamptz not null,
    debits numeric not null,
    credits numeric not null,
    primary key (account, currency, partition)
) with (fillfactor = 80);

create table daily_totals (
    day date not null,
    partition integer not null,
    transactions bigint not null,
    amount_min bigint not null,
    amount_max bigint not null,
    currency text collate "C" not null,
    kind text collate "C" not null,
    amount numeric not null,
    primary key (day, currency, kind, partition)
) with (fillfactor = 50);

-- Once per statement. Rows that an upsert updates are not among the new ones: what is delivered again counts once.
create function fold() returns trigger language plpgsql as $$
begin
    insert into balances as b (account, currency, partition, transactions, last_occurred_at, debits, credits)
    select account, currency, partition, count(*), max(occurred_at), sum(debit), sum(credit)
    from (
        select debit_account as account, currency, partition, occurred_at, amount as debit, 0 as credit from added
        union all
        select credit_account, currency, partition, occurred_at, 0, amount from added
    ) moves
    group by account, currency, partition
    order by account, currency, partition
    on conflict (account, currency, partition) do update set
        transactions = b.transactions + excluded.transactions,
        last_occurred_at = greatest(b.last_occurred_at, excluded.last_occurred_at),
        debits = b.debits + excluded.debits,
        credits = b.credits + excluded.credits;

    insert into daily_totals as t (day, currency, kind, partition, transactions, amount, amount_min, amount_max)
    select (occurred_at at time zone 'UTC')::date, currency, kind, partition, count(*), sum(amount), min(amount),
        max(amount)
    from added
    group by 1, 2, 3, 4
    order by 1, 2, 3, 4
    on conflict (day, currency, kind, partition) do update set
        transactions = t.transactions + excluded.transactions,
        amount = t.amount + excluded.amount,
        amount_min = least(t.amount_min, excluded.amount_min),
        amount_max = greatest(t.amount_max, excluded.amount_max);
    return null;
end
$$;
create trigger fold after insert on transactions
    referencing new table as added for each statement execute function fold();
