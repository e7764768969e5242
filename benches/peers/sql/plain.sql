-- One table with one key: what debezium-upsert, debezium-insert and copy write to. The time of the statement that
-- wrote a row is there to measure by; its default costs next to nothing.
create table transactions (
    amount bigint not null,
    -- Microseconds since 1970, as in the log.
    occurred_at bigint not null,
    recorded_at timestamptz not null default now(),
    id uuid primary key,
    currency text collate "C" not null,
    debit_account text collate "C" not null,
    credit_account text collate "C" not null,
    kind text collate "C" not null,
    source text collate "C" not null,
    reference text collate "C",
    metadata text
);
