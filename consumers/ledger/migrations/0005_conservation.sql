-- The sum over the log to its end: what is not yet applied stands beside what is.
set local role millrace_migrator;
set local search_path = millrace;

create or replace view reports.conservation as
select b.partition, b.incarnation, coalesce(p.start_offset, b.start_offset) as start_offset,
    coalesce(p.position, b.position) as position, b.posted, b.duplicate, b.rejected, b.parked, b.discarded,
    b.records, b.skipped,
    coalesce(p.position, b.position) - coalesce(p.start_offset, b.start_offset) = b.records + b.skipped as holds,
    case
        when s.updated_at < now() - interval '10 s' or s.log_end is null or p.position is null then null
        when s.log_end < p.position then 0
        else s.log_end - p.position
    end as not_yet_applied
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
left join positions p on p.partition = b.partition and p.incarnation = b.incarnation
left join partition_status s on s.partition = p.partition;

comment on view reports.conservation is
    'That nothing is lost: per partition and incarnation, every offset of the log between start and position is a record with exactly one verdict, or no record; from there to the log''s end it is not yet applied. Counted from the batches; millrace verify counts the tables and the log too. Start and position of the current incarnation are those that the ledger goes by.';
comment on column reports.conservation.not_yet_applied is 'Offsets between position and the log''s end, as the owner last saw it; null of an earlier incarnation, and when no owner has reported for 10 seconds.';

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
