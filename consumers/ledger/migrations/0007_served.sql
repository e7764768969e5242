-- Which partitions of the topic this database serves: a ledger can be split over several databases, each with
-- partitions of its own, for no row is shared between partitions.
set local role millrace_migrator;
set local search_path = millrace;

-- Null: all that the topic has. Written by `millrace migrate --partitions` alone: at the creation of a database here,
-- so that no lane ever sees it serve others, and later only so that nothing falls out that was begun.
create table served (
    singleton boolean primary key default true check (singleton),
    partitions integer[] check (cardinality(partitions) > 0 and array_position(partitions, null) is null)
);
insert into served (partitions) values (nullif(current_setting('millrace.served', true), '')::integer[]);
grant select on served to millrace_writer;

create view reports.served as
select s.partitions, l.topic, l.partitions as topic_partitions
from served s
left join log l on true;

comment on view reports.served is
    'Which partitions of the log are in this database. Where a ledger is split over several databases, the reports of each tell of its own partitions alone.';
comment on column reports.served.partitions is 'The numbers of the partitions, ascending; null: all.';
comment on column reports.served.topic is 'The topic that they are of; null before the first one was read.';
comment on column reports.served.topic_partitions is 'How many partitions the topic has; null before the first one was read.';

grant select on reports.served to millrace_reader;

-- What follows in the same transaction is not ours.
reset role;
set local search_path to default;
