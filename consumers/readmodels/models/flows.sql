-- model: flows
-- mode: background
-- cost: 4.2 µs of Postgres CPU per transaction, in runs of 300,000
--
-- What went from account to account per month: a new row for nearly every transaction, so it is folded
-- behind, in runs as large as there is work.

-- table
create table if not exists flows (
    month date not null,
    partition integer not null,
    transactions bigint not null,
    debit_account text collate "C" not null,
    credit_account text collate "C" not null,
    currency text collate "C" not null,
    amount numeric not null,
    primary key (debit_account, credit_account, currency, month, partition)
) with (fillfactor = 90);

-- view
create or replace view reports.flows as
select t.debit_account, t.credit_account, t.currency, c.exponent, t.month, t.transactions, t.amount
from (
    select debit_account, credit_account, currency, month, sum(transactions)::bigint as transactions,
        sum(amount) as amount
    from flows
    group by debit_account, credit_account, currency, month
) t
left join currencies c on c.currency = t.currency;

comment on view reports.flows is
    'What went from one account to another per month and currency. Follows the ledger within seconds: see read_model_freshness. Quick by debit_account.';
comment on column reports.flows.debit_account is 'The account that the amounts were taken from.';
comment on column reports.flows.credit_account is 'The account that the amounts were given to.';
comment on column reports.flows.currency is 'ISO 4217 code of the amounts'' currency.';
comment on column reports.flows.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.flows.month is 'First day of the UTC month in which the transactions happened, as the senders say.';
comment on column reports.flows.transactions is 'Number of posted transactions.';
comment on column reports.flows.amount is 'Sum of their amounts, in minor units.';

-- fold
insert into flows as t (debit_account, credit_account, currency, month, partition, transactions, amount)
select debit_account, credit_account, currency, date_trunc('month', occurred_at at time zone 'UTC')::date, partition,
    count(*), sum(amount)
from posted
group by 1, 2, 3, 4, 5
order by 1, 2, 3, 4, 5
on conflict (debit_account, credit_account, currency, month, partition) do update set
    transactions = t.transactions + excluded.transactions,
    amount = t.amount + excluded.amount;
