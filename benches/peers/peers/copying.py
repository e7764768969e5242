"""Client of `copy`: rows that are encoded beforehand, as fast as Postgres takes them.

python -m peers.copying BROKERS TOPIC PARTITIONS COUNT DATABASE_URL CONNECTIONS
"""

import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import psycopg

from peers.clients import in_threads, serve
from peers.workload import Transaction, decode, read_topic

ROWS_PER_COMMIT = 5_000

# The columns of sql/plain.sql without the one that has a default.
COPY = (
    "copy transactions (amount, occurred_at, id, currency, debit_account, credit_account, kind, source, reference,"
    " metadata) from stdin (format binary)"
)
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
FIXED = struct.Struct(">hiqiqi16s")
LENGTH = struct.Struct(">i")
NULL = LENGTH.pack(-1)


def encode(rows: Iterable[Transaction]) -> bytes:
    """One COPY of these rows. Format: https://www.postgresql.org/docs/15/sql-copy.html, "Binary Format"."""
    return b"".join([SIGNATURE, *map(_row, rows), TRAILER])


def _row(row: Transaction) -> bytes:
    fixed = FIXED.pack(10, 8, row.amount, 8, row.occurred_at, 16, bytes.fromhex(row.id.replace(b"-", b"").decode()))
    texts = (row.currency, row.debit_account, row.credit_account, row.kind, row.source)
    return b"".join([fixed, *map(_text, texts), _nullable(row.reference), _nullable(_json(row.metadata))])


def _text(text: bytes) -> bytes:
    return LENGTH.pack(len(text)) + text


def _nullable(text: bytes) -> bytes:
    return _text(text) if text else NULL


def _json(pairs: list[tuple[bytes, bytes]]) -> bytes:
    # What is generated has nothing in it that JSON would escape.
    return b"{" + b",".join(b'"%s":"%s"' % pair for pair in pairs) + b"}" if pairs else b""


def _batches(rows: Iterator[Transaction]) -> Iterator[bytes]:
    while batch := list(islice(rows, ROWS_PER_COMMIT)):
        yield encode(batch)


def _copy(database_url: str, batches: list[bytes]) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection, connection.cursor() as cursor:
        for batch in batches:
            with cursor.copy(COPY) as copy:
                copy.write(batch)


def main(brokers: str, topic: str, partitions: str, count: str, database_url: str, connections: str) -> None:
    """See above."""

    def prepare() -> Callable[[], dict[str, float]]:
        rows = map(decode, read_topic(brokers, topic, int(partitions), int(count)))
        batches = list(_batches(rows))
        shares = [batches[place :: int(connections)] for place in range(int(connections))]

        def work() -> dict[str, float]:
            in_threads(partial(_copy, database_url, share) for share in shares)
            return {}

        return work

    serve(prepare)


if __name__ == "__main__":
    main(*sys.argv[1:])
