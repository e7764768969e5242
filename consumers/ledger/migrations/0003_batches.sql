-- What the query service and its console read besides the reports of analysts: positions without the
-- cost of freshness, and the batches themselves.
set local role millrace_migrator;
set local search_path = millrace;

-- Throughput over the last minutes: one entry per batch and partition.
create index batches_recorded_at on batches (recorded_at);

-- positions

create view reports.positions as
select partition, incarnation, position, next_seq
from positions;

comment on view reports.positions is
    'How far the ledger has applied each partition of the log. The cheapest answer to "is it there yet?".';
comment on column reports.positions.partition is 'The partition of the log.';
comment on column reports.positions.incarnation is 'Goes up when an operator accepts a gap in the log; from 1.';
comment on column reports.positions.position is 'The next log offset to apply.';
comment on column reports.positions.next_seq is 'The number that the partition''s next stored outcome gets: how many it has.';

-- batches

create view reports.batches as
select partition, batch, incarnation, from_offset, next_offset, first_seq, next_seq, posted, duplicate,
    rejected + refused as rejected, parked, discarded, skipped, recorded_at
from batches;

comment on view reports.batches is
    'Every batch that was applied: its range of the log and what became of it. Quick by (partition, batch) and by recorded_at.';
comment on column reports.batches.partition is 'The partition of the log.';
comment on column reports.batches.batch is 'Its number in the partition, from 0.';
comment on column reports.batches.incarnation is 'The incarnation of the partition that it belongs to.';
comment on column reports.batches.from_offset is 'The first log offset of its range.';
comment on column reports.batches.next_offset is 'The log offset after its range.';
comment on column reports.batches.first_seq is 'The number of its first stored outcome.';
comment on column reports.batches.next_seq is 'The number after its last stored outcome.';
comment on column reports.batches.posted is 'Records that were posted.';
comment on column reports.batches.duplicate is 'Records that were known already, with the same content.';
comment on column reports.batches.rejected is 'Records that were rejected or refused.';
comment on column reports.batches.parked is 'Records parked; below 0 in a batch that resolves parked records.';
comment on column reports.batches.discarded is 'Parked records that an operator gave up.';
comment on column reports.batches.skipped is 'Offsets without a record.';
comment on column reports.batches.recorded_at is 'When it was applied.';

grant select on reports.positions, reports.batches to millrace_reader;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
