-- What analysts see: schema reports. Names and columns are stable, every column has a comment, and every
-- amount has its currency's exponent beside it. Views of read models come with their models
-- (consumers/readmodels/models).
--
-- Each view keeps its conditions on single tables, so that `where id = ..`, `where account = ..` and
-- the like reach an index. Currencies and reasons are joined from the left: a missing name or exponent
-- shows as null and never hides a row.
set local role millrace_migrator;
set local search_path = millrace;

-- Failures in a row, for the backoff: whoever tries next knows how long to wait.
alter table read_model_positions add column failures integer not null default 0;

-- The few rejected rows among many posted ones, by time.
create index ledger_rejected on ledger (recorded_at) where verdict <> 0;
create index refused_recorded_at on refused (recorded_at);

comment on schema reports is
    'Read-only views for analysts. Amounts are integers in minor units: amount / 10^exponent is the amount in the currency.';

-- transactions

create view reports.transactions as
select l.id, l.kind, l.debit_account, l.credit_account, l.amount, l.currency, c.exponent, l.occurred_at,
    l.recorded_at, l.reference, l.source, l.metadata, l.partition, l.seq, l.log_offset
from ledger l
left join currencies c on c.currency = l.currency
where l.verdict = 0;

comment on view reports.transactions is
    'Every posted transaction, once. Quick by id, by debit_account, by credit_account and by (partition, seq).';
comment on column reports.transactions.id is 'The transaction''s id, unique across the system.';
comment on column reports.transactions.kind is 'What kind of transaction the sender says it is.';
comment on column reports.transactions.debit_account is 'The account that the amount was taken from.';
comment on column reports.transactions.credit_account is 'The account that the amount was given to.';
comment on column reports.transactions.amount is 'Minor units of the currency, always above 0.';
comment on column reports.transactions.currency is 'ISO 4217 code of the amount''s currency.';
comment on column reports.transactions.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.transactions.occurred_at is 'When it happened, as the sender says.';
comment on column reports.transactions.recorded_at is 'When it was posted here.';
comment on column reports.transactions.reference is 'The sender''s text, or null.';
comment on column reports.transactions.source is 'The upstream system that sent it.';
comment on column reports.transactions.metadata is 'Further text values by name as sent, or null.';
comment on column reports.transactions.partition is 'The partition of the log that it came from.';
comment on column reports.transactions.seq is 'Its number among the stored outcomes of the partition, from 0, without gaps across all reports.';
comment on column reports.transactions.log_offset is 'Its record''s offset in the partition of the log.';

-- balances

create view reports.balances as
select b.account, b.currency, c.exponent, b.debits, b.credits, b.credits - b.debits as balance,
    b.transactions, b.last_occurred_at
from (
    select account, currency, sum(debits) as debits, sum(credits) as credits,
        sum(transactions)::bigint as transactions, max(last_occurred_at) as last_occurred_at
    from balances
    group by account, currency
) b
left join currencies c on c.currency = b.currency;

comment on view reports.balances is
    'What every account has moved and holds, one row per account and currency, as of the last batch. Quick by account.';
comment on column reports.balances.account is 'The account''s id; external:.. is the outside world.';
comment on column reports.balances.currency is 'ISO 4217 code.';
comment on column reports.balances.exponent is 'Decimal digits of the currency''s minor unit: 2 for EUR, 0 for JPY.';
comment on column reports.balances.debits is 'Sum of the amounts taken from the account, in minor units.';
comment on column reports.balances.credits is 'Sum of the amounts given to the account, in minor units.';
comment on column reports.balances.balance is 'Credits minus debits, in minor units; below 0 when overdrawn.';
comment on column reports.balances.transactions is 'Number of posted transactions on either side of the account.';
comment on column reports.balances.last_occurred_at is 'The latest time at which one of them happened, as the senders say.';

-- rejections

create view reports.rejections as
select o.id, r.name as reason, o.detail, o.debit_account, o.credit_account, o.amount, o.currency, c.exponent,
    o.occurred_at, o.recorded_at, o.partition, o.seq, o.log_offset
from (
    select id, verdict as reason, null::text as detail, debit_account, credit_account, amount, currency,
        occurred_at, recorded_at, partition, seq, log_offset
    from ledger
    where verdict <> 0
    union all
    select id, reason, detail, debit_account, credit_account, amount, currency,
        occurred_at, recorded_at, partition, seq, log_offset
    from refused
) o
left join reasons r on r.kind = 'verdict' and r.code = o.reason
left join currencies c on c.currency = o.currency;

comment on view reports.rejections is
    'Every record that was rejected or refused; nothing of it was posted. A rejected transaction keeps its id; a refused record (invalid, misrouted, id_conflict) binds none, and shows what could be read of it. Quick by id and by recorded_at.';
comment on column reports.rejections.id is 'The transaction''s id; of a refused record null where it could not be read, and not necessarily unique.';
comment on column reports.rejections.reason is 'Why, as a stable name such as insufficient_funds.';
comment on column reports.rejections.detail is 'What exactly was wrong with a refused record; null for a rejected one.';
comment on column reports.rejections.debit_account is 'The account to take from, or null where it could not be read.';
comment on column reports.rejections.credit_account is 'The account to give to, or null where it could not be read.';
comment on column reports.rejections.amount is 'Minor units of the currency, or null where it could not be read.';
comment on column reports.rejections.currency is 'The currency''s code as sent, or null where it could not be read.';
comment on column reports.rejections.exponent is 'Decimal digits of the currency''s minor unit; null where the code is not one of ISO 4217.';
comment on column reports.rejections.occurred_at is 'When it happened, as the sender says, or null where it could not be read.';
comment on column reports.rejections.recorded_at is 'When it was rejected here.';
comment on column reports.rejections.partition is 'The partition of the log that it came from.';
comment on column reports.rejections.seq is 'Its number among the stored outcomes of the partition, from 0.';
comment on column reports.rejections.log_offset is 'Its record''s offset in the partition of the log.';

-- parked

create view reports.parked as
select p.partition, p.seq, p.log_offset, p.key, encode(p.key, 'escape') as key_text, r.name as reason, p.detail,
    p.recorded_at as parked_at, p.id, p.value as bytes, p.headers, s.resolution, s.reason as resolution_reason,
    s.operator, s.recorded_at as resolved_at
from parked p
left join reasons r on r.kind = 'parked' and r.code = p.reason
left join parked_resolutions s on s.partition = p.partition and s.parked_seq = p.seq;

comment on view reports.parked is
    'Every record that was put aside for an operator, byte for byte, and what became of it. Open ones have no resolution and hold back later records of their key. Quick by (partition, seq) and by key.';
comment on column reports.parked.partition is 'The partition of the log that it came from.';
comment on column reports.parked.seq is 'Its number among the stored outcomes of the partition, from 0.';
comment on column reports.parked.log_offset is 'Its record''s offset in the partition of the log.';
comment on column reports.parked.key is 'The record''s key as bytes, or null.';
comment on column reports.parked.key_text is 'The key as text; bytes beyond ASCII as \nnn in octal.';
comment on column reports.parked.reason is 'Why, as a stable name such as undecodable; behind: an earlier record of its key is parked.';
comment on column reports.parked.detail is 'What exactly was wrong.';
comment on column reports.parked.parked_at is 'When it was parked.';
comment on column reports.parked.id is 'The transaction''s id, or null where it could not be read.';
comment on column reports.parked.bytes is 'The record''s value, byte for byte, or null.';
comment on column reports.parked.headers is 'The record''s headers: for each, 4 bytes of length and the name, 4 bytes of length (-1: null) and the value.';
comment on column reports.parked.resolution is 'replayed or discarded; null while it is open.';
comment on column reports.parked.resolution_reason is 'Why the operator resolved it so; null while it is open.';
comment on column reports.parked.operator is 'Who resolved it; null while it is open.';
comment on column reports.parked.resolved_at is 'When it was resolved; null while it is open.';

-- conservation

create view reports.conservation as
select b.partition, b.incarnation, coalesce(p.start_offset, b.start_offset) as start_offset,
    coalesce(p.position, b.position) as position, b.posted, b.duplicate, b.rejected, b.parked, b.discarded,
    b.records, b.skipped,
    coalesce(p.position, b.position) - coalesce(p.start_offset, b.start_offset) = b.records + b.skipped as holds
from (
    select partition, incarnation, min(from_offset) as start_offset, max(next_offset) as position,
        sum(posted) as posted, sum(duplicate) as duplicate, sum(rejected) as rejected, sum(parked) as parked,
        sum(discarded) as discarded, sum(posted + duplicate + rejected + parked + discarded) as records,
        sum(skipped)::bigint as skipped
    from (
        select partition, incarnation, from_offset, next_offset, posted, duplicate, rejected + refused as rejected,
            parked, discarded, skipped
        from batches
        union all
        -- An incarnation that has no batch yet.
        select partition, incarnation, start_offset, start_offset, 0, 0, 0, 0, 0, 0
        from positions
    ) counts
    group by partition, incarnation
) b
left join positions p on p.partition = b.partition and p.incarnation = b.incarnation;

comment on view reports.conservation is
    'That nothing is lost: per partition and incarnation, every offset of the log between start and position is a record with exactly one verdict, or no record. Counted from the batches; start and position of the current incarnation are those that the ledger goes by.';
comment on column reports.conservation.partition is 'The partition of the log.';
comment on column reports.conservation.incarnation is 'Goes up when an operator accepts a gap in the log; from 1.';
comment on column reports.conservation.start_offset is 'The first log offset of the incarnation.';
comment on column reports.conservation.position is 'The next log offset to apply; of an earlier incarnation, where it ended.';
comment on column reports.conservation.posted is 'Records that were posted.';
comment on column reports.conservation.duplicate is 'Records that were known already, with the same content.';
comment on column reports.conservation.rejected is 'Records that were rejected or refused.';
comment on column reports.conservation.parked is 'Records parked minus parked records resolved: those still open. Resolving one of an earlier incarnation counts -1 here.';
comment on column reports.conservation.discarded is 'Parked records that an operator gave up.';
comment on column reports.conservation.records is 'The sum of posted, duplicate, rejected, parked and discarded.';
comment on column reports.conservation.skipped is 'Offsets without a record: control records and aborted transactions.';
comment on column reports.conservation.holds is 'Whether position - start_offset = records + skipped.';

-- freshness

create view reports.freshness as
select p.partition, p.incarnation, p.position, b.recorded_at, s.owner,
    case when s.is_stale then 'silent' else s.state end as state, s.detail, s.log_end,
    case
        when s.is_stale then null
        when s.log_end < p.position then 0
        else s.log_end - p.position
    end as lag_records, s.oldest_unapplied_at,
    case
        when s.is_stale then null
        when s.log_end <= p.position then 0
        when s.oldest_unapplied_at > now() then 0
        else extract(epoch from now() - s.oldest_unapplied_at)
    end::numeric(14, 3) as oldest_unapplied_age_s,
    case when s.updated_at > now() then 0 else extract(epoch from now() - s.updated_at) end::numeric(14, 3)
        as status_age_s,
    p.next_seq
from positions p
left join (
    -- An owner reports each second; what one that is gone has said is not true any more.
    select *, updated_at < now() - interval '10 s' as is_stale from partition_status
) s on s.partition = p.partition
left join lateral (
    select recorded_at from batches where partition = p.partition order by batch desc limit 1
) b on true;

comment on view reports.freshness is
    'How current the ledger and the balances are, one row per partition. Owner to log end are what the owner last said, about each second: look at status_age_s first.';
comment on column reports.freshness.partition is 'The partition of the log.';
comment on column reports.freshness.incarnation is 'Goes up when an operator accepts a gap in the log; from 1.';
comment on column reports.freshness.position is 'The next log offset to apply.';
comment on column reports.freshness.recorded_at is 'When the last batch was applied; null before the first one.';
comment on column reports.freshness.owner is 'The replica and lane that serve the partition, or did last.';
comment on column reports.freshness.state is 'What the owner is doing with it; silent when it has not reported for 10 seconds.';
comment on column reports.freshness.detail is 'Why it is paused or stopped, else empty.';
comment on column reports.freshness.log_end is 'The log''s end: the offset after its last record.';
comment on column reports.freshness.lag_records is 'Offsets between position and log end; null when no owner reports.';
comment on column reports.freshness.oldest_unapplied_at is 'When the oldest record that is not applied came into the log, or a little before; null when there is none, or when it is not known.';
comment on column reports.freshness.oldest_unapplied_age_s is 'Its age in seconds, to the millisecond; 0 when there is none, null when it is not known.';
comment on column reports.freshness.status_age_s is 'Seconds since the owner last reported; null when none has yet.';
comment on column reports.freshness.next_seq is 'The number that the partition''s next stored outcome gets: how many it has.';

-- read_model_freshness

create view reports.read_model_freshness as
select p.partition, r.model, r.mode, r.cost, coalesce(m.seq, 0) as position, p.next_seq,
    p.next_seq - coalesce(m.seq, 0) as lag_seqs, u.recorded_at as oldest_unfolded_at,
    coalesce(greatest(extract(epoch from now() - u.recorded_at), 0), 0)::numeric(14, 3) as oldest_unfolded_age_s,
    m.error, m.failed_at
from positions p
cross join read_models r
left join read_model_positions m on m.model = r.model and m.partition = p.partition
left join lateral (
    select recorded_at from ledger
    where ledger.partition = p.partition and ledger.seq >= coalesce(m.seq, 0)
    order by ledger.seq limit 1
) u on true;

comment on view reports.read_model_freshness is
    'How current each read model is (daily_totals and the like), one row per partition and model.';
comment on column reports.read_model_freshness.partition is 'The partition of the log.';
comment on column reports.read_model_freshness.model is 'The read model: the name of its report.';
comment on column reports.read_model_freshness.mode is 'inline: follows with the ledger''s own batches; background: follows within seconds.';
comment on column reports.read_model_freshness.cost is 'What folding the read model was measured to cost.';
comment on column reports.read_model_freshness.position is 'The seq up to which (exclusive) the partition''s outcomes are in the report.';
comment on column reports.read_model_freshness.next_seq is 'The seq that the partition''s next stored outcome gets.';
comment on column reports.read_model_freshness.lag_seqs is 'Stored outcomes that are not in the report yet.';
comment on column reports.read_model_freshness.oldest_unfolded_at is 'When the oldest transaction that is not in the report was recorded; null when there is none.';
comment on column reports.read_model_freshness.oldest_unfolded_age_s is 'Its age in seconds, to the millisecond; 0 when there is none.';
comment on column reports.read_model_freshness.error is 'Why the last attempt to bring it up failed; null when it worked.';
comment on column reports.read_model_freshness.failed_at is 'When that was; null when it worked.';

grant usage on schema reports to millrace_reader;
grant select on all tables in schema reports to millrace_reader;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
