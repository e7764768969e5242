"""Kafka and Postgres as infra/local/up.sh starts them, and what a run makes there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from confluent_kafka.admin import AdminClient
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from peers.processes import stat

# The name of this program's own connections, whose CPU is not Postgres' work for a peer.
APPLICATION = "peers harness"

# Kafka answers within seconds even on a busy machine.
ANSWER_TIMEOUT_S = 60


def one(connection: psycopg.Connection, query: LiteralString) -> tuple[Any, ...]:
    """The row of a query that has one."""
    row = connection.execute(query).fetchone()
    if row is None:
        raise RuntimeError(f"no row: {query}")
    return row


@dataclass(frozen=True)
class Servers:
    """Where they are, and which processes."""

    brokers: str
    database_url: str
    broker_pids: list[int]
    postmaster: int

    @classmethod
    def of(cls, directory: Path) -> "Servers":
        """Those that run in a directory of infra/local/up.sh, whose environment is this program's."""
        pids = [int(file.read_text(encoding="ascii")) for file in sorted(directory.glob("kafka-*/pid"))]
        url = os.environ["DATABASE_URL"]
        with psycopg.connect(url) as connection:
            backend = connection.info.backend_pid
            return cls(os.environ["MILLRACE_BROKERS"], url, pids, stat(backend).parent)

    def database(self, name: str) -> str:
        """The URL of another database of the same server, as millrace takes it."""
        return f"{self.database_url.rpartition('/')[0]}/{name}"

    def jdbc(self, name: str) -> str:
        """The same for Java, without the user."""
        parts = conninfo_to_dict(self.database_url)
        return f"jdbc:postgresql://{parts['host']}:{parts['port']}/{name}"

    def user(self) -> str:
        """Who connects."""
        return str(conninfo_to_dict(self.database_url)["user"])

    def connect(self, name: str) -> psycopg.Connection:
        """A connection of this program."""
        conninfo = make_conninfo(self.database(name), application_name=APPLICATION)
        connection = psycopg.connect(conninfo, autocommit=True)
        # What it counts must not take a second core from whoever is measured.
        connection.execute("set max_parallel_workers_per_gather = 0")
        return connection

    def create_database(self, name: str, *scripts: Path) -> None:
        """An empty one, then what the SQL files make in it."""
        self.drop_database(name)
        self._execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        with psycopg.connect(self.database(name)) as connection:
            for script in scripts:
                connection.execute(script.read_bytes())

    def drop_database(self, name: str) -> None:
        """With whoever is connected."""
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def delete_group(self, name: str) -> None:
        """Forgets how far a consumer group is. A group that is not there is no failure."""
        admin = self._kafka()  # as long as its answers are waited for
        for future in admin.delete_consumer_groups([name]).values():
            future.exception(ANSWER_TIMEOUT_S)

    def delete_topic(self, name: str) -> None:
        """The same for a topic."""
        admin = self._kafka()
        for future in admin.delete_topics([name]).values():
            future.exception(ANSWER_TIMEOUT_S)

    def _kafka(self) -> AdminClient:
        # Errors only: it would also say that it is closed with its answers unread.
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 3})

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)
