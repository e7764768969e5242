"""Markdown of kept runs: the table, and what each peer does not do."""

from collections.abc import Callable, Iterable
from statistics import median

from peers.cases import PEERS
from peers.record import Figures, Record

Cell = Callable[[Figures], float]

# What a group of runs has in common, so that its runs may be compared.
Key = tuple[str, str, int, int, int]


def markdown(records: list[Record]) -> str:
    """All of it. Runs of different conditions are told apart by their heading, not in the table."""
    if not records:
        return "no runs"
    parts = [_conditions(records), _table(records), _absences(records), *_failures(records)]
    return "\n\n".join(parts)


def summary(record: Record) -> str:
    """One run in a line."""
    figures = record.figures
    verdict = f"FAILED: {'; '.join(record.failures)}" if record.failures else "holds"
    return (
        f"{figures.events_per_s:,.0f} events/s; CPU {figures.peer_us:.1f} + Postgres {figures.postgres_us:.1f}"
        f" + Kafka {figures.kafka_us:.1f} µs; WAL {figures.wal_bytes:.0f} bytes; {figures.peer_peak_mib:.0f} MiB;"
        f" {verdict}"
    )


def _conditions(records: list[Record]) -> str:
    lines = []
    for record in records:
        kept = record.conditions
        postgres = kept.get("postgres", {})
        settings = ", ".join(f"{name} {postgres[name]}" for name in sorted(postgres) if name != "server_version")
        lines.append(
            f"{kept.get('cores')} cores ({kept.get('cpu')}), {kept.get('memory_mib', 0) / 1024:.1f} GiB,"
            f" Linux {kept.get('kernel')}; Kafka {kept.get('kafka')}, {kept.get('brokers')} broker(s);"
            f" Postgres {postgres.get('server_version')} ({settings});"
            f" Debezium JDBC sink {kept.get('debezium')} on Kafka Connect {kept.get('connect')},"
            f" Java {kept.get('java')}; librdkafka {kept.get('librdkafka')}, psycopg {kept.get('psycopg')};"
            f" {kept.get('millrace')}, commit {kept.get('commit')}."
        )
    return "\n\n".join(dict.fromkeys(lines)) + " Servers, peers and this program share the cores."


def _table(records: list[Record]) -> str:
    keys = list(dict.fromkeys(map(_key, records)))
    columns: list[tuple[str, Callable[[list[Record]], str]]] = [
        ("peer", lambda runs: runs[0].peer),
        ("events", lambda runs: f"{runs[0].count:,}"),
        ("skew", lambda runs: runs[0].skew),
        ("runs", lambda runs: str(len(runs))),
        ("events/s (min–max)", lambda runs: _spread(runs, lambda f: f.events_per_s, 0, "**")),
        ("peer µs", lambda runs: _spread(runs, lambda f: f.peer_us, 1)),
        ("of it once started", _started),
        ("Postgres µs", lambda runs: _spread(runs, lambda f: f.postgres_us, 1)),
        ("Kafka µs", lambda runs: _median(runs, lambda f: f.kafka_us, 1)),
        ("all three µs", lambda runs: _median(runs, lambda f: f.peer_us + f.postgres_us + f.kafka_us, 1)),
        ("WAL bytes", lambda runs: _median(runs, lambda f: f.wal_bytes, 0)),
        ("peer peak MiB", lambda runs: _median(runs, lambda f: f.peer_peak_mib, 0)),
        ("others' CPU %", lambda runs: _median(runs, lambda f: f.others_percent, 0)),
        ("checks", lambda runs: "fail" if any(run.failures for run in runs) else "hold"),
    ]
    rows = [[name for name, _ in columns], ["---"] * len(columns)]
    for key in sorted(keys, key=_place):
        runs = [record for record in records if _key(record) == key]
        rows.append([cell(runs) for _, cell in columns])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _absences(records: list[Record]) -> str:
    there = {record.peer for record in records}
    lines = [f"- **{p.name}**: {p.what}. Does not do: {p.does_not}" for p in PEERS if p.name in there and p.does_not]
    return "\n".join(lines)


def _failures(records: list[Record]) -> Iterable[str]:
    for record in records:
        for failure in record.failures:
            yield f"FAILED: {record.peer} of {record.at}: {failure}"


def _key(record: Record) -> Key:
    return record.peer, record.skew, record.count, record.accounts, record.partitions


def _place(key: Key) -> tuple[int, str, int]:
    names = [peer.name for peer in PEERS]
    peer, skew, count, *_ = key
    return names.index(peer) if peer in names else len(names), skew, count


def _spread(runs: list[Record], cell: Cell, digits: int, mark: str = "") -> str:
    values = [cell(run.figures) for run in runs]
    middle = f"{mark}{median(values):,.{digits}f}{mark}"
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})" if len(values) > 1 else middle


def _started(runs: list[Record]) -> str:
    values = [run.figures.peer_started_us for run in runs if run.figures.peer_started_us is not None]
    return f"{median(values):,.1f}" if values else ""


def _median(runs: list[Record], cell: Cell, digits: int) -> str:
    return f"{median(cell(run.figures) for run in runs):,.{digits}f}"
