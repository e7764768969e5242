"""The `millrace` binary: as a tool, and as the peer that all others stand beside."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from peers.servers import Servers
from peers.services import Service
from peers.workload import START_MICROS, Workload


@dataclass(frozen=True)
class Millrace:
    """The binary, the servers that it is to use, and where what it says is kept."""

    path: Path
    servers: Servers
    logs: Path

    def version(self) -> str:
        """What --version says."""
        return subprocess.run([self.path, "--version"], check=True, capture_output=True, text=True).stdout.strip()

    def publish(self, topic: str, workload: Workload) -> None:
        """Creates the topic and fills it."""
        self.run(["topics", "create", "--partitions", str(workload.partitions)], topic)
        flags = {
            "--count": workload.count,
            "--accounts": workload.accounts,
            "--skew": workload.skew,
            "--seed": workload.seed,
            "--start": START_MICROS,
        }
        self.run(["generate", *(str(word) for flag in flags.items() for word in flag)], topic)

    def run(self, arguments: list[str], topic: str, database: str = "") -> None:
        """Runs a tool to its end; a failure shows what it said."""
        done = subprocess.run(
            [self.path, *arguments],
            env=self._environment(topic, database),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"millrace {' '.join(arguments)}: status {done.returncode}: {done.stdout}{done.stderr}")

    def start(self, arguments: list[str], topic: str, database: str) -> Service:
        """Starts a service."""
        log = self.logs / f"{database}.log"
        return Service([str(self.path), *arguments], self._environment(topic, database), log)

    def _environment(self, topic: str, database: str) -> dict[str, str]:
        return {
            **os.environ,
            "MILLRACE_BROKERS": self.servers.brokers,
            "MILLRACE_TOPIC": topic,
            "MILLRACE_GROUP": database or topic,
            "MILLRACE_ADMIN_LISTEN": "127.0.0.1:0",
            "DATABASE_URL": self.servers.database(database),
        }
