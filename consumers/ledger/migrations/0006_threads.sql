-- An account's transactions without an index: each posted row names the one before it of the same slice, for
-- either side, and the slice names the last one. Two btrees on the accounts cost a third of a batch; this
-- costs a number per side.
set local role millrace_migrator;
set local search_path = millrace;

alter table ledger
    -- The seq, in the same partition, of the posted transaction before this one that moved the debit account in
    -- this currency; null for the first one and for rejected ones.
    add column debit_previous bigint,
    -- The same of the credit account.
    add column credit_previous bigint;

alter table balances
    -- The seq of the slice's last transaction.
    add column last_seq bigint;

-- Threads the rows that are there.
alter table ledger disable trigger append_only;
update ledger l set debit_previous = p.debit, credit_previous = p.credit
from (
    select partition, seq, max(previous) filter (where is_debit) as debit,
        max(previous) filter (where not is_debit) as credit
    from (
        select partition, seq, is_debit,
            lag(seq) over (partition by account, currency, partition order by seq) as previous
        from ledger cross join lateral (values (true, debit_account), (false, credit_account)) side (is_debit, account)
        where verdict = 0
    ) sides
    group by partition, seq
) p
where l.partition = p.partition and l.seq = p.seq;
alter table ledger enable trigger append_only;

update balances b set last_seq = s.last_seq
from (
    select account, currency, partition, max(seq) as last_seq
    from ledger cross join lateral (values (debit_account), (credit_account)) side (account)
    where verdict = 0
    group by account, currency, partition
) s
where s.account = b.account and s.currency = b.currency and s.partition = b.partition;
alter table balances alter column last_seq set not null;

drop index ledger_debit_account, ledger_credit_account;

-- transactions

create or replace view reports.transactions as
select l.id, l.kind, l.debit_account, l.credit_account, l.amount, l.currency, c.exponent, l.occurred_at,
    l.recorded_at, l.reference, l.source, l.metadata, l.partition, l.seq, l.log_offset, l.debit_previous,
    l.credit_previous
from ledger l
left join currencies c on c.currency = l.currency
where l.verdict = 0;

comment on view reports.transactions is
    'Every posted transaction, once. Quick by id and by (partition, seq); an account''s are in account_transactions.';
comment on column reports.transactions.debit_previous is 'The seq, in the same partition, of the transaction before this one that moved the debit account in this currency; null for the first one.';
comment on column reports.transactions.credit_previous is 'The same of the credit account.';

-- account_partitions

create view reports.account_partitions as
select account, currency, partition, transactions, last_seq
from balances;

comment on view reports.account_partitions is
    'Which partitions of the log have moved an account, and where its transactions begin: from last_seq backwards by debit_previous or credit_previous. Quick by account.';
comment on column reports.account_partitions.account is 'The account''s id; external:.. is the outside world.';
comment on column reports.account_partitions.currency is 'ISO 4217 code.';
comment on column reports.account_partitions.partition is 'The partition of the log.';
comment on column reports.account_partitions.transactions is 'Number of posted transactions of the partition on either side of the account.';
comment on column reports.account_partitions.last_seq is 'The seq of the last one.';

-- account_transactions

create view reports.account_transactions as
select b.account, t.id, t.kind, t.debit_account, t.credit_account, t.amount, t.currency, c.exponent, t.occurred_at,
    t.recorded_at, t.reference, t.source, t.metadata, t.partition, t.seq, t.log_offset, t.debit_previous,
    t.credit_previous
from balances b
cross join lateral (
    with recursive thread as (
        select l.* from ledger l where l.partition = b.partition and l.seq = b.last_seq
        union all
        select l.*
        from thread t
        join ledger l on l.partition = b.partition
            and l.seq = case when t.debit_account = b.account then t.debit_previous else t.credit_previous end
    )
    select * from thread
) t
left join currencies c on c.currency = b.currency;

comment on view reports.account_transactions is
    'Every posted transaction twice: once for each of its two accounts. Quick by account, and only by account: its rows are found one after the other, some 200,000 a second.';
comment on column reports.account_transactions.account is 'The account: the transaction''s debit_account or its credit_account.';
comment on column reports.account_transactions.id is 'The transaction''s id, unique across the system.';
comment on column reports.account_transactions.kind is 'What kind of transaction the sender says it is.';
comment on column reports.account_transactions.debit_account is 'The account that the amount was taken from.';
comment on column reports.account_transactions.credit_account is 'The account that the amount was given to.';
comment on column reports.account_transactions.amount is 'Minor units of the currency, always above 0.';
comment on column reports.account_transactions.currency is 'ISO 4217 code of the amount''s currency.';
comment on column reports.account_transactions.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.account_transactions.occurred_at is 'When it happened, as the sender says.';
comment on column reports.account_transactions.recorded_at is 'When it was posted here.';
comment on column reports.account_transactions.reference is 'The sender''s text, or null.';
comment on column reports.account_transactions.source is 'The upstream system that sent it.';
comment on column reports.account_transactions.metadata is 'Further text values by name as sent, or null.';
comment on column reports.account_transactions.partition is 'The partition of the log that it came from.';
comment on column reports.account_transactions.seq is 'Its number among the stored outcomes of the partition, from 0, without gaps across all reports.';
comment on column reports.account_transactions.log_offset is 'Its record''s offset in the partition of the log.';
comment on column reports.account_transactions.debit_previous is 'The seq, in the same partition, of the transaction before this one that moved the debit account in this currency; null for the first one.';
comment on column reports.account_transactions.credit_previous is 'The same of the credit account.';

grant select on reports.account_partitions, reports.account_transactions to millrace_reader;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
