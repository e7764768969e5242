"""What a run's figures depend on. Nothing that names the machine or a directory on it."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg

from peers.servers import Servers

REPOSITORY = Path(__file__).parents[3]

SETTINGS = [
    "autovacuum",
    "checkpoint_timeout",
    "data_checksums",
    "fsync",
    "full_page_writes",
    "max_wal_size",
    "server_version",
    "shared_buffers",
    "synchronous_commit",
    "wal_compression",
]


def read(servers: Servers, millrace: str, connect_jars: Path) -> dict[str, Any]:
    """The machine and the versions."""
    with psycopg.connect(servers.database_url) as connection:
        settings = connection.execute(
            "select name, current_setting(name) from pg_settings where name = any(%s) order by name", [SETTINGS]
        ).fetchall()
    broker = Path(f"/proc/{servers.broker_pids[0]}/cmdline").read_text(encoding="utf-8")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "postgres": dict(settings),
        "kafka": _first(r"/kafka-([0-9.]+)/", broker),
        "brokers": len(servers.broker_pids),
        "connect": jar_version(connect_jars, "connect-runtime"),
        "debezium": jar_version(connect_jars, "debezium-connector-jdbc"),
        "pgjdbc": jar_version(connect_jars, "postgresql"),
        "java": _first(r'version "([^"]*)"', _output("java", "-version")),
        "python": platform.python_version(),
        "librdkafka": confluent_kafka.libversion()[0],
        "psycopg": psycopg.__version__,
        "libpq": psycopg.pq.version_pretty(psycopg.pq.version()),
        "millrace": millrace,
        "commit": commit(),
    }


def jar_version(jars: Path, name: str) -> str | None:
    """From the name of the jar."""
    found = [_first(rf"{name}-([0-9].*)\.jar", jar.name) for jar in jars.glob(f"{name}-[0-9]*.jar")]
    return found[0] if found else None


def commit() -> str | None:
    """Of the working directory, with a plus sign when something was changed since."""
    head = _output("git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD").strip()
    # Results of earlier runs are no change of what is measured.
    changed = _output("git", "-C", str(REPOSITORY), "status", "--porcelain", "--", ".", ":!benches/results")
    return head + ("+" if changed.strip() else "") if re.fullmatch("[0-9a-f]{12}", head) else None


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1].strip() if found else None


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
