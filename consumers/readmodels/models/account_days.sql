-- model: account_days
-- mode: background
-- cost: 6.2 µs of Postgres CPU per transaction, in runs of 300,000
--
-- What every account moved per day: two rows for nearly every transaction, so it is folded behind, in
-- runs as large as there is work. Sorted, because neighbours in a run are then neighbours in the index:
-- unsorted, a run of 300,000 costs half as much again.

-- table
create table if not exists account_days (
    day date not null,
    partition integer not null,
    transactions bigint not null,
    account text collate "C" not null,
    currency text collate "C" not null,
    debits numeric not null,
    credits numeric not null,
    primary key (account, currency, day, partition)
) with (fillfactor = 80);

-- view
create or replace view reports.account_days as
select t.account, t.currency, c.exponent, t.day, t.debits, t.credits, t.transactions
from (
    select account, currency, day, sum(debits) as debits, sum(credits) as credits,
        sum(transactions)::bigint as transactions
    from account_days
    group by account, currency, day
) t
left join currencies c on c.currency = t.currency;

comment on view reports.account_days is
    'What every account moved per day and currency. Follows the ledger within seconds: see read_model_freshness. Quick by account.';
comment on column reports.account_days.account is 'The account''s id; external:.. is the outside world.';
comment on column reports.account_days.currency is 'ISO 4217 code of the amounts'' currency.';
comment on column reports.account_days.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.account_days.day is 'The UTC day on which the transactions happened, as the senders say.';
comment on column reports.account_days.debits is 'Sum of the amounts taken from the account, in minor units.';
comment on column reports.account_days.credits is 'Sum of the amounts given to the account, in minor units.';
comment on column reports.account_days.transactions is 'Number of posted transactions on either side of the account.';

-- fold
insert into account_days as t (account, currency, day, partition, transactions, debits, credits)
select case when side.is_debit then p.debit_account else p.credit_account end, p.currency,
    (p.occurred_at at time zone 'UTC')::date, p.partition, count(*),
    sum(case when side.is_debit then p.amount else 0 end), sum(case when side.is_debit then 0 else p.amount end)
from posted p
cross join (values (true), (false)) as side (is_debit)
group by 1, 2, 3, 4
order by 1, 2, 3, 4
on conflict (account, currency, day, partition) do update set
    transactions = t.transactions + excluded.transactions,
    debits = t.debits + excluded.debits,
    credits = t.credits + excluded.credits;
