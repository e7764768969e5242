"""Which peers there are, how each is set up, and what each does not do."""

from dataclasses import dataclass, field

from peers import connect

LANES = 2
PGLEDGER_CLIENTS = 4
# Minor units: more than all debits of an account, so that whoever checks it finds enough.
OVERDRAFT_LIMIT = 10**15


@dataclass(frozen=True)
class Peer:
    """One way to get transactions into Postgres, or a part of one as a limit."""

    name: str
    # Which kind of process it is; the harness knows how to run each.
    kind: str
    what: str
    # In a sentence; empty for Millrace itself.
    does_not: str
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A peer and the accounts that its transactions are between."""

    peer: Peer
    skew: str

    @property
    def name(self) -> str:
        """As --only takes it."""
        return f"{self.peer.name}@{self.skew}"


ONE_TABLE = (
    "verdicts, funds and limits, balances, read models, hash chain, refused or parked records: a record it cannot read"
    " stops it"
)

PEERS = [
    Peer(
        "millrace",
        "millrace",
        "the ledger group, two lanes; `millrace verify` must hold afterwards",
        "",
        {"lanes": str(LANES)},
    ),
    Peer(
        "millrace-limits",
        "millrace",
        "the same with an overdraft limit on every account, so that each debit's funds are checked; they suffice",
        "",
        {"lanes": str(LANES), "overdraft_limit": str(OVERDRAFT_LIMIT)},
    ),
    Peer(
        "debezium-upsert",
        "debezium",
        "Debezium JDBC sink on Kafka Connect, `insert .. select from unnest .. on conflict (id) do update`; one table,"
        " one key",
        f"{ONE_TABLE}. What is delivered again overwrites its row: exactly once by id, but the last content wins and"
        " nothing says so.",
        connect.UPSERT,
    ),
    Peer(
        "debezium-insert",
        "debezium",
        "the same without `on conflict`",
        f"{ONE_TABLE}. No exactly once: what is delivered again breaks the key and stops the connector.",
        connect.INSERT,
    ),
    Peer(
        "debezium-equal",
        "debezium",
        "the sink's upsert into a table with the columns, keys and indexes of Millrace's ledger; a trigger per"
        " statement keeps balances and daily totals",
        "verdicts, funds and limits (nothing decides), digests and hash chain, batches that account for every offset,"
        " refused or parked records. An id that comes again with other content overwrites the row, and the balances"
        " keep the first.",
        connect.UPSERT | connect.LEDGER_ROWS,
    ),
    Peer(
        "copy-1",
        "copy",
        "binary COPY of rows encoded beforehand into one table with one key, 5,000 rows a commit, one connection: a"
        " limit",
        "anything but writing: no Kafka, no decoding, no duplicates, no position.",
        {"connections": "1"},
    ),
    Peer("copy-2", "copy", "the same by two connections", "as copy-1.", {"connections": "2"}),
    Peer(
        "consumer",
        "consumer",
        "a consumer group of one, librdkafka from Python, that drops what it gets: the other limit",
        "anything but reading: no decoding, no database.",
    ),
    Peer(
        "pgledger",
        "pgledger",
        f"SQL functions in pgledger's style, 100 transfers a call, {PGLEDGER_CLIENTS} clients, accounts that may not be"
        " overdrawn and are not",
        "Kafka, recognising duplicates (a call that is sent again counts again), verdicts (one overdrawn account fails"
        " its whole call), the transaction's own id, kind, reference, source and metadata, hash chain, read models.",
        {"clients": str(PGLEDGER_CLIENTS)},
    ),
]

# Those that also run with a few busy accounts, whatever the rest runs with: there locks decide.
SKEWED = ["millrace", "millrace-limits", "pgledger"]
STEEP = "zipf:2.0"


def all_cases(skew: str) -> list[Case]:
    """The default."""
    cases = [Case(peer, skew) for peer in PEERS]
    if skew != STEEP:
        cases += [Case(peer, STEEP) for peer in PEERS if peer.name in SKEWED]
    return cases


def choose(cases: list[Case], only: list[str]) -> list[Case]:
    """Those named as PEER or PEER@SKEW, in their own order; fails for a name that is none."""
    known = {name for case in cases for name in (case.name, case.peer.name)}
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"no such peer: {', '.join(unknown)}; there are {', '.join(case.name for case in cases)}")
    return [case for case in cases if not only or case.name in only or case.peer.name in only]
