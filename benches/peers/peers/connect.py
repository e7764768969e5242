"""Kafka Connect with Debezium's JDBC sink, standalone: one worker, one connector."""

import json
import os
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from peers.servers import Servers
from peers.services import Service

# One gigabyte, as Kafka has here, and the collector that spends the least CPU.
JAVA_OPTIONS = ["-Xms1g", "-Xmx1g", "-XX:+UseParallelGC"]

TASKS = 2
BATCH_RECORDS = 2_000

START_TIMEOUT_S = 120

# What a connector is told apart from addresses and names. Measured: more tasks than two are slower here, so are
# multi-row inserts (reWriteBatchedInserts) in place of arrays, and schemas in every message.
SINK = {
    "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
    "tasks.max": str(TASKS),
    "collection.name.format": "transactions",
    "schema.evolution": "none",
    "batch.size": str(BATCH_RECORDS),
    "dialect.postgres.unnest.insert.enabled": "true",
    "connection.pool.min_size": "1",
    "connection.pool.max_size": "4",
    "value.converter": "millrace.peers.TransactionConverter",
    "consumer.override.max.poll.records": str(BATCH_RECORDS),
    "consumer.override.auto.offset.reset": "earliest",
    "consumer.override.fetch.max.bytes": str(64 << 20),
    "consumer.override.max.partition.fetch.bytes": str(4 << 20),
    "consumer.override.receive.buffer.bytes": str(1 << 20),
}
INSERT = {"insert.mode": "insert", "primary.key.mode": "none"}
# Without the reduction buffer an id that comes twice in a batch fails the statement.
UPSERT = {
    "insert.mode": "upsert",
    "primary.key.mode": "record_value",
    "primary.key.fields": "id",
    "use.reduction.buffer": "true",
}
# Rows of sql/equal.sql: the place in the log too.
LEDGER_ROWS = {
    "value.converter.rows": "ledger",
    "transforms": "place",
    "transforms.place.type": "millrace.peers.Place",
}


class NotFound(Exception):
    """What it answers for everything before it is up, and then for a connector that has no status yet."""


@dataclass(frozen=True)
class Connect:
    """What is needed to start one."""

    servers: Servers
    class_path: str
    work: Path

    def start(self, name: str) -> "Worker":
        """A worker without a connector, up and listening."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        properties = self.work / f"{name}.properties"
        offsets = self.work / f"{name}.offsets"
        properties.write_text(
            f"bootstrap.servers={self.servers.brokers}\n"
            f"listeners=http://127.0.0.1:{port}\n"
            f"offset.storage.file.filename={offsets}\n"
            "key.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n"
            "value.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n"
            "plugin.discovery=service_load\n"
            "connector.client.config.override.policy=All\n",
            encoding="utf-8",
        )
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        command = [_java(), *JAVA_OPTIONS, "-cp", self.class_path, main, str(properties)]
        worker = Worker(Service(command, dict(os.environ), self.work / f"{name}.log"), port)
        worker.wait_until_up()
        return worker

    def sink(self, topic: str, database: str, settings: dict[str, str]) -> dict[str, str]:
        """A connector's whole configuration."""
        return {
            **SINK,
            **settings,
            "topics": topic,
            "connection.url": self.servers.jdbc(database),
            "connection.username": self.servers.user(),
            "connection.password": "unused",
        }


class Worker:
    """A running worker, spoken to by its REST interface."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_up(self) -> None:
        """Until it answers; when it does not, it is stopped."""
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            while not self._is_up():
                self.service.check()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Kafka Connect is not up: {self.service.last_words()}")
                time.sleep(0.2)
        except BaseException:
            self.service.stop()
            raise

    def create(self, name: str, settings: dict[str, str]) -> None:
        """Adds and starts a connector."""
        self._ask("/connectors", {"name": name, "config": settings})

    def check(self, name: str) -> None:
        """Fails when the worker has ended or a part of the connector has failed."""
        self.service.check()
        try:
            status = self._ask(f"/connectors/{name}/status")
        except NotFound:
            return  # it is still starting
        for part in [status["connector"], *status["tasks"]]:
            if part["state"] == "FAILED":
                raise RuntimeError(f"{name}: {part.get('trace')}")

    def _is_up(self) -> bool:
        try:
            self._ask("/connectors")
        except (NotFound, URLError, ConnectionError):
            return False
        return True

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code == 404:
                raise NotFound(path) from None
            raise RuntimeError(f"Kafka Connect answers {error.code}: {error.read().decode()}") from None


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else "java"
