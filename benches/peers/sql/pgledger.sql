-- A ledger in the style of pgledger (https://github.com/pgr0ss/pgledger): the same tables, columns and indexes, and
-- the same steps for each transfer, one statement each. Written for this benchmark, not copied. One thing is cheaper
-- than there: an id is hexadecimal text of the same length, made by built-in functions, and not a ULID that PL/pgSQL
-- encodes.
create function pgledger_generate_id(prefix text) returns text language sql volatile as $$
    select prefix || '_' || lpad(to_hex((extract(epoch from clock_timestamp()) * 1000000)::bigint), 14, '0')
        || substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)
$$;

create table pgledger_accounts (
    id text primary key default pgledger_generate_id('pgla'),
    name text not null,
    currency text not null,
    balance numeric not null default 0,
    version bigint not null default 0,
    allow_negative_balance boolean not null,
    allow_positive_balance boolean not null,
    metadata jsonb,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table pgledger_transfers (
    id text primary key default pgledger_generate_id('pglt'),
    from_account_id text not null references pgledger_accounts,
    to_account_id text not null references pgledger_accounts,
    amount numeric not null check (amount > 0),
    created_at timestamptz not null,
    event_at timestamptz not null,
    metadata jsonb,
    check (from_account_id <> to_account_id)
);
create index on pgledger_transfers (from_account_id);
create index on pgledger_transfers (to_account_id);
create index on pgledger_transfers (event_at);

create table pgledger_entries (
    id text primary key default pgledger_generate_id('pgle'),
    account_id text not null references pgledger_accounts,
    transfer_id text not null references pgledger_transfers,
    amount numeric not null,
    account_previous_balance numeric not null,
    account_current_balance numeric not null,
    account_version bigint not null,
    created_at timestamptz not null
);
create index on pgledger_entries (account_id);
create index on pgledger_entries (transfer_id);

create type transfer_request as (from_account_id text, to_account_id text, amount numeric);

-- Moves an account's balance, refuses what the account does not allow, and returns the account as it then is.
create function pgledger_move(moved text, delta numeric) returns pgledger_accounts language plpgsql as $$
declare
    account pgledger_accounts;
begin
    update pgledger_accounts a
    set balance = a.balance + delta, version = a.version + 1, updated_at = now()
    where a.id = moved
    returning a.* into account;
    if account.balance < 0 and not account.allow_negative_balance then
        raise exception 'account % may not be overdrawn', moved;
    elsif account.balance > 0 and not account.allow_positive_balance then
        raise exception 'account % may not have a positive balance', moved;
    end if;
    return account;
end
$$;

create function pgledger_create_transfers(requests transfer_request[]) returns setof pgledger_transfers
language plpgsql as $$
declare
    request transfer_request;
    locked text;
    sender pgledger_accounts;
    receiver pgledger_accounts;
    transfer text;
    transfers text[] := '{}';
begin
    -- All rows in one order, so that two calls wait and do not deadlock.
    for locked in
        select account from unnest(requests) r, unnest(array[r.from_account_id, r.to_account_id]) account
        group by account order by account
    loop
        perform from pgledger_accounts a where a.id = locked for update;
    end loop;

    foreach request in array requests loop
        sender := pgledger_move(request.from_account_id, -request.amount);
        receiver := pgledger_move(request.to_account_id, request.amount);
        if sender.currency <> receiver.currency then
            raise exception 'accounts % and % have different currencies', sender.id, receiver.id;
        end if;

        insert into pgledger_transfers (from_account_id, to_account_id, amount, created_at, event_at)
        values (sender.id, receiver.id, request.amount, now(), now())
        returning id into transfer;
        transfers := transfers || transfer;

        insert into pgledger_entries (account_id, transfer_id, amount, account_previous_balance,
            account_current_balance, account_version, created_at)
        values (sender.id, transfer, -request.amount, sender.balance + request.amount, sender.balance,
            sender.version, now());
        insert into pgledger_entries (account_id, transfer_id, amount, account_previous_balance,
            account_current_balance, account_version, created_at)
        values (receiver.id, transfer, request.amount, receiver.balance - request.amount, receiver.balance,
            receiver.version, now());
    end loop;

    return query select t.* from pgledger_transfers t where t.id = any(transfers) order by t.id;
end
$$;
