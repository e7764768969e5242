"""All costs between two moments."""

import time
from dataclasses import dataclass

import psycopg

from peers import processes
from peers.servers import Servers, one


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: CPU in microseconds, all of them only ever rising."""

    at: float
    machine: int
    peer: int
    postgres: int
    kafka: int
    harness: int
    wal_bytes: int


@dataclass(frozen=True)
class Costs:
    """What was spent between two readings, per event."""

    seconds: float
    peer_us: float
    postgres_us: float
    kafka_us: float
    wal_bytes: float
    others_percent: float


def read(servers: Servers, connection: psycopg.Connection, peers: list[int]) -> Reading:
    """All counters now. `connection` is the harness' own, of which Postgres' time is not counted."""
    (wal_bytes,) = one(connection, "select (pg_current_wal_lsn() - '0/0')::bigint")
    own_backend = processes.cpu(connection.info.backend_pid)
    return Reading(
        at=time.monotonic(),
        machine=processes.machine_cpu(),
        peer=sum(processes.tree_cpu(pid) for pid in peers),
        postgres=processes.tree_cpu(servers.postmaster) - own_backend,
        kafka=sum(processes.cpu(pid) for pid in servers.broker_pids),
        harness=time.process_time_ns() // 1_000 + own_backend,
        wal_bytes=wal_bytes,
    )


def costs(start: Reading, end: Reading, count: int, cores: int) -> Costs:
    """The difference, divided among the events."""
    seconds = end.at - start.at
    peer, postgres, kafka = end.peer - start.peer, end.postgres - start.postgres, end.kafka - start.kafka
    ours = peer + postgres + kafka + end.harness - start.harness
    others = max(0, end.machine - start.machine - ours)
    return Costs(
        seconds=seconds,
        peer_us=peer / count,
        postgres_us=postgres / count,
        kafka_us=kafka / count,
        wal_bytes=(end.wal_bytes - start.wal_bytes) / count,
        others_percent=100 * others / (seconds * 1e6 * cores),
    )
