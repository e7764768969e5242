"""One run of one case, from an empty database to checked figures."""

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from peers import meter, processes
from peers.binary import Millrace
from peers.cases import LANES, Case
from peers.connect import BATCH_RECORDS, JAVA_OPTIONS, SINK, Connect
from peers.record import Figures, Record
from peers.servers import Servers, one
from peers.services import Service
from peers.workload import Workload

SQL = Path(__file__).parents[1] / "sql"

# How often it is asked whether everything has arrived.
POLL_S = 0.05

# Counting rows costs Postgres time, which is not counted but not there for the peer either: so once there are some
# they are counted only when nothing was written for a poll, or at the latest after so long.
COUNT_EVERY_S = 5.0

# A peer without progress for so long has failed. Kafka Connect starts up in far less.
STALL_MAX_S = 180.0

TRANSACTIONS = "select recorded_at as at, count(*) as rows from transactions group by 1"
BATCHES = "select recorded_at as at, sum(posted) as rows from millrace.batches group by 1"
TRANSFERS = "select created_at as at, count(*) as rows from pgledger_transfers group by 1"

KEPT_SUMS = """
select (select sum(debits) from balances), (select sum(credits) from balances),
    (select sum(amount) from daily_totals), (select sum(amount) from transactions),
    (select sum(transactions) / 2 from balances), (select sum(transactions) from daily_totals)
"""
LEDGER_SUMS = """
select (select sum(account_current_balance - account_previous_balance) from pgledger_entries),
    (select count(*) from pgledger_entries), (select count(*) from pgledger_accounts where balance < 0)
"""


@dataclass(frozen=True)
class Measured:
    """One drain, before it is divided into figures. What comes of no database has its rate from the client."""

    start: meter.Reading
    end: meter.Reading
    peak_kib: int
    told: dict[str, float]
    # The peer's CPU per event once the first had arrived, where that is later than the start.
    started_us: float | None = None


@dataclass(frozen=True)
class First:
    """When some had arrived, and none a poll before."""

    arrived: int
    peer_cpu: int


class Run:
    """One case, with a database and a consumer group of its own, both of one name."""

    def __init__(self, servers: Servers, case: Case, workload: Workload, topic: str, name: str) -> None:
        self.servers = servers
        self.case = case
        self.workload = workload
        self.topic = topic
        self.name = name

    @contextmanager
    def database(self, *scripts: str) -> Iterator[psycopg.Connection]:
        """An empty database and this program's connection to it; gone afterwards."""
        self.servers.create_database(self.name, *(SQL / script for script in scripts))
        try:
            with self.servers.connect(self.name) as connection:
                yield connection
        finally:
            self.servers.drop_database(self.name)

    def begin(self, connection: psycopg.Connection, peers: list[int]) -> meter.Reading:
        """After a checkpoint, so that every run begins with the same pages to write: none."""
        connection.execute("checkpoint")
        return meter.read(self.servers, connection, peers)

    def drain(
        self,
        connection: psycopg.Connection,
        start: meter.Reading,
        service: Service,
        arrived: LiteralString,
        check: Callable[[], None],
    ) -> Measured:
        """Waits until everything has arrived."""
        first = self.wait(connection, service, arrived, check)
        end = meter.read(self.servers, connection, [service.pid])
        left = self.workload.count - first.arrived
        started_us = (end.peer - first.peer_cpu) / left if left else None
        return Measured(start, end, processes.peak_resident_kib(service.pid), {}, started_us)

    def wait(
        self, connection: psycopg.Connection, service: Service, arrived: LiteralString, check: Callable[[], None]
    ) -> First:
        """Until the query's number is the count; fails when it stops growing, or `check` does."""
        wal: tuple[Any, ...] | None = None
        last, first = 0, None
        moved = counted = time.monotonic()
        while True:
            time.sleep(POLL_S)
            wal_before, wal = wal, one(connection, "select pg_current_wal_insert_lsn()")
            now = time.monotonic()
            if first and wal != wal_before and now - counted < COUNT_EVERY_S:
                continue
            counted = now
            (found,) = one(connection, arrived)
            if found and not first:
                first = First(found, processes.tree_cpu(service.pid))
            if first and found >= self.workload.count:
                return first
            if found != last:
                last, moved = found, now
                continue
            if now - moved > 1:
                check()
            if now - moved > STALL_MAX_S:
                raise RuntimeError(f"no progress for {STALL_MAX_S} s: {found} of {self.workload.count}")


class Harness:
    """Runs cases. What all runs share."""

    def __init__(
        self, servers: Servers, millrace: Millrace, connect: Connect, work: Path, conditions: dict[str, Any]
    ) -> None:
        self.servers = servers
        self.millrace = millrace
        self.connect = connect
        self.work = work
        self.conditions = conditions
        self.kinds = {
            "millrace": self._millrace,
            "debezium": self._debezium,
            "copy": self._copy,
            "consumer": self._consumer,
            "pgledger": self._pgledger,
        }

    def run(self, case: Case, workload: Workload, topic: str, name: str) -> Record:
        """One run of one case."""
        run = Run(self.servers, case, workload, topic, name)
        try:
            return self.kinds[case.peer.kind](run)
        finally:
            for group in (name, f"connect-{name}"):
                self.servers.delete_group(group)

    def _millrace(self, run: Run) -> Record:
        with run.database() as connection:
            self.millrace.run(["migrate"], run.topic, run.name)
            if limit := run.case.peer.settings.get("overdraft_limit"):
                self.millrace.run(["accounts", "default", "--overdraft-limit", limit], run.topic, run.name)
            start = run.begin(connection, [])
            with self.millrace.start(["ledger", "--lanes", str(LANES)], run.topic, run.name) as ledger:
                applied = "select coalesce(sum(position), 0)::bigint from millrace.positions"
                measured = run.drain(connection, start, ledger, applied, ledger.check)
            failures = []
            try:
                self.millrace.run(["verify"], run.topic, run.name)
            except RuntimeError as failure:
                failures.append(str(failure))
            arrived = _number(connection, "select count(*) from millrace.ledger where verdict = 0")
            return self._record(run, measured, arrived, failures, _rate(connection, BATCHES), run.case.peer.settings)

    def _debezium(self, run: Run) -> Record:
        peer = run.case.peer
        with run.database("equal.sql" if peer.name == "debezium-equal" else "plain.sql") as connection:
            worker = self.connect.start(run.name)
            with worker.service:
                # Java and Connect are up: what starting them cost is not counted, connecting and compiling is.
                start = run.begin(connection, [worker.service.pid])
                worker.create(run.name, self.connect.sink(run.topic, run.name, peer.settings))
                rows: LiteralString = "select count(*) from transactions"
                measured = run.drain(connection, start, worker.service, rows, lambda: worker.check(run.name))
            arrived = _number(connection, "select count(*) from transactions")
            failures = _kept_sums(connection, run.workload.count) if peer.name == "debezium-equal" else []
            settings = {**SINK, **peer.settings, "java": " ".join(JAVA_OPTIONS), "batch": str(BATCH_RECORDS)}
            return self._record(run, measured, arrived, failures, _rate(connection, TRANSACTIONS), settings)

    def _copy(self, run: Run) -> Record:
        settings = run.case.peer.settings
        with run.database("plain.sql") as connection:
            url = self.servers.database(run.name)
            measured = self._client(run, connection, "copying", [*self._source(run), url, settings["connections"]])
            arrived = _number(connection, "select count(*) from transactions")
            return self._record(run, measured, arrived, [], _rate(connection, TRANSACTIONS), settings)

    def _pgledger(self, run: Run) -> Record:
        settings = run.case.peer.settings
        with run.database("pgledger.sql") as connection:
            url = self.servers.database(run.name)
            measured = self._client(run, connection, "transfers", [*self._source(run), url, settings["clients"]])
            arrived = _number(connection, "select count(*) from pgledger_transfers")
            found = one(connection, LEDGER_SUMS)
            wanted = (0, 2 * run.workload.count, 0)
            failures = [] if found == wanted else [f"sum of moves, entries, overdrawn accounts: {found}, not {wanted}"]
            return self._record(run, measured, arrived, failures, _rate(connection, TRANSFERS), settings)

    def _consumer(self, run: Run) -> Record:
        with run.database() as connection:
            count = run.workload.count
            words = [self.servers.brokers, run.topic, str(count), run.name]
            measured = self._client(run, connection, "consuming", words)
            told = measured.told
            after_first = told["arrived"] - told["first"]
            rate = Rate(after_first / told["seconds"] if told["seconds"] else 0, 0)
            return self._record(run, measured, int(told["arrived"]), [], rate, {})

    def _client(self, run: Run, connection: psycopg.Connection, module: str, words: list[str]) -> Measured:
        command = [sys.executable, "-m", f"peers.{module}", *words]
        with Service(command, dict(os.environ), self.work / f"{run.name}.log", talks=True) as client:
            client.hear()
            start = run.begin(connection, [client.pid])
            client.say("go")
            told = json.loads(client.hear())
            end = meter.read(self.servers, connection, [client.pid])
            return Measured(start, end, processes.peak_resident_kib(client.pid), told)

    def _source(self, run: Run) -> list[str]:
        return [self.servers.brokers, run.topic, str(run.workload.partitions), str(run.workload.count)]

    def _record(
        self, run: Run, measured: Measured, arrived: int, failures: list[str], rate: "Rate", settings: dict[str, str]
    ) -> Record:
        workload = run.workload
        costs = meter.costs(measured.start, measured.end, workload.count, self.conditions["cores"])
        if arrived != workload.count:
            failures = [f"{arrived} of {workload.count} arrived", *failures]
        return Record(
            at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            peer=run.case.peer.name,
            skew=run.case.skew,
            count=workload.count,
            accounts=workload.accounts,
            partitions=workload.partitions,
            seed=workload.seed,
            arrived=arrived,
            figures=Figures(
                events_per_s=rate.per_s or workload.count / costs.seconds,
                peer_us=costs.peer_us,
                peer_started_us=measured.started_us,
                postgres_us=costs.postgres_us,
                kafka_us=costs.kafka_us,
                wal_bytes=costs.wal_bytes,
                peer_peak_mib=measured.peak_kib / 1024,
                wall_s=costs.seconds,
                commits=rate.commits,
                others_percent=costs.others_percent,
            ),
            settings=settings,
            conditions=self.conditions,
            failures=failures,
        )


@dataclass(frozen=True)
class Rate:
    """Events per second after the first commit; zero where there was only one."""

    per_s: float
    commits: int


def _rate(connection: psycopg.Connection, commits: LiteralString) -> Rate:
    seconds, rows, number, first = one(
        connection,
        f"""with c as ({commits})
        select extract(epoch from max(at) - min(at))::float8, sum(rows)::float8, count(*),
            (select rows from c order by at limit 1)::float8
        from c""",
    )
    return Rate((rows - first) / seconds if seconds else 0, number)


def _kept_sums(connection: psycopg.Connection, count: int) -> list[str]:
    debits, credits, totals, amounts, moves, counted = one(connection, KEPT_SUMS)
    if debits == credits == totals == amounts and moves == counted == count:
        return []
    return [f"debits {debits}, credits {credits}, totals {totals} of {amounts}; counts {moves}, {counted} of {count}"]


def _number(connection: psycopg.Connection, query: LiteralString) -> int:
    (number,) = one(connection, query)
    return int(number)
