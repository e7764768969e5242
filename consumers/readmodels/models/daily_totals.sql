-- model: daily_totals
-- mode: inline
-- cost: 0.8 µs of Postgres CPU per transaction, in batches of 5,000
--
-- What was moved per day, currency and kind. A batch touches a handful of rows, so it is folded
-- inside it. Rows are rewritten by every batch: room in the pages keeps the updates off the index.

-- table
create table if not exists daily_totals (
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

-- view
create or replace view reports.daily_totals as
select t.day, t.currency, c.exponent, t.kind, t.transactions, t.amount, t.amount_min, t.amount_max
from (
    select day, currency, kind, sum(transactions)::bigint as transactions, sum(amount) as amount,
        min(amount_min) as amount_min, max(amount_max) as amount_max
    from daily_totals
    group by day, currency, kind
) t
left join currencies c on c.currency = t.currency;

comment on view reports.daily_totals is
    'What was moved per day, currency and kind. Quick by day.';
comment on column reports.daily_totals.day is 'The UTC day on which the transactions happened, as the senders say.';
comment on column reports.daily_totals.currency is 'ISO 4217 code of the amounts'' currency.';
comment on column reports.daily_totals.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.daily_totals.kind is 'What kind of transactions the senders say they are.';
comment on column reports.daily_totals.transactions is 'Number of posted transactions.';
comment on column reports.daily_totals.amount is 'Sum of their amounts, in minor units.';
comment on column reports.daily_totals.amount_min is 'The smallest amount, in minor units.';
comment on column reports.daily_totals.amount_max is 'The largest amount, in minor units.';

-- fold
insert into daily_totals as t (day, currency, kind, partition, transactions, amount, amount_min, amount_max)
select (occurred_at at time zone 'UTC')::date as day, currency, kind, partition, count(*), sum(amount), min(amount),
    max(amount)
from posted
group by 1, 2, 3, 4
order by 1, 2, 3, 4
on conflict (day, currency, kind, partition) do update set
    transactions = t.transactions + excluded.transactions,
    amount = t.amount + excluded.amount,
    amount_min = least(t.amount_min, excluded.amount_min),
    amount_max = greatest(t.amount_max, excluded.amount_max);
