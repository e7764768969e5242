-- Which database this is, and what operators have accepted.
set local role millrace_migrator;
set local search_path = millrace;

-- The broker is told of it with every committed offset: a database that has lost what it had committed is
-- recognised by that. A restored copy is the same database.
alter table log add column database_id uuid not null default gen_random_uuid();

-- One row per incarnation but the first: where the position was, where it went on, who said so and why.
-- The batch with which it begins has no records. Append-only.
create table incarnations (
    partition integer not null,
    incarnation integer not null check (incarnation > 1),
    batch bigint not null,
    previous_position bigint not null,
    start_offset bigint not null,
    reason text not null check (reason <> ''),
    operator text not null,
    accepted_at timestamptz not null default now(),
    primary key (partition, incarnation)
);
create trigger append_only before update or delete or truncate on incarnations
    for each statement execute function refuse_change();
grant select, insert on incarnations to millrace_writer;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
