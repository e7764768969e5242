"""What is kept of a run: one JSON object a line."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figures:
    """Per event: CPU in microseconds, and bytes of WAL. What a peer has nothing of is none."""

    # After the first commit, over the time from the first transaction's start to the last one's.
    events_per_s: float
    peer_us: float
    # Of those after the first that arrived: starting and connecting are not in it. None for small clients.
    peer_started_us: float | None
    postgres_us: float
    kafka_us: float
    wal_bytes: float
    peer_peak_mib: float
    # From before the peer was told to start until everything had arrived.
    wall_s: float
    # Database transactions.
    commits: int
    # What neither servers, peer nor harness used of the machine, or what its host withheld.
    others_percent: float


@dataclass(frozen=True)
class Record:
    """One run of one case."""

    at: str
    peer: str
    skew: str
    count: int
    accounts: int
    partitions: int
    seed: int
    arrived: int
    figures: Figures
    settings: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    # Everything that was wrong with the result.
    failures: list[str] = field(default_factory=list)


def append(file: Path, record: Record) -> None:
    """Adds a line, also after one that a run which was cut off has left unended."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
    with file.open("a+b") as lines:
        if lines.seek(0, os.SEEK_END):
            lines.seek(-1, os.SEEK_END)
            if lines.read(1) != b"\n":
                line = "\n" + line
        lines.write(line.encode())


def read(file: Path) -> list[Record]:
    """All of a file; ValueError names the line that is none."""
    kept = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                kept.append(parse(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{file}:{number}: not a result of this program ({error})") from error
    if not kept:
        raise ValueError(f"{file}: no results")
    return kept


def parse(line: str) -> Record:
    """One line."""
    fields = json.loads(line)
    return Record(**{**fields, "figures": Figures(**fields["figures"])})
