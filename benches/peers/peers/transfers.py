"""Client of `pgledger`: calls its function for many transfers.

python -m peers.transfers BROKERS TOPIC PARTITIONS COUNT DATABASE_URL CLIENTS
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import psycopg

from peers.clients import in_threads, serve
from peers.workload import decode, read_topic

TRANSFERS_PER_CALL = 100

CALL = """
select count(*) from pgledger_create_transfers(
    (select array_agg(row(sender, receiver, amount)::transfer_request order by place)
     from unnest(%s::text[], %s::text[], %s::numeric[]) with ordinality as t (sender, receiver, amount, place)))
"""

Transfer = tuple[str, str, int]


def accounts_for(transfers: list[Transfer]) -> list[tuple[str, int]]:
    """Every account, with what it needs so that none of its debits overdraws it."""
    debits = Counter[str]()
    for sender, receiver, amount in transfers:
        debits[sender] += amount
        debits[receiver] += 0
    return sorted(debits.items())


def open_accounts(database_url: str, accounts: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Creates them, none of which may be overdrawn, and returns their ids by name."""
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("create temporary table wanted (name text, balance bigint)")
        with cursor.copy("copy wanted from stdin") as copy:
            for account in accounts:
                copy.write_row(account)
        cursor.execute(
            """insert into pgledger_accounts (name, currency, balance, allow_negative_balance, allow_positive_balance,
                   created_at, updated_at)
               select name, 'EUR', balance::numeric, false, true, now(), now() from wanted
               returning name, id"""
        )
        ids: dict[str, str] = dict(cursor.fetchall())
        connection.commit()
        cursor.execute("analyze pgledger_accounts")
        return ids


def _send(database_url: str, calls: list[list[Transfer]]) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for call in calls:
            connection.execute(CALL, [list(column) for column in zip(*call, strict=True)], prepare=True)


def main(brokers: str, topic: str, partitions: str, count: str, database_url: str, clients: str) -> None:
    """See above."""

    def prepare() -> Callable[[], dict[str, float]]:
        named = [
            (row.debit_account.decode(), row.credit_account.decode(), row.amount)
            for row in map(decode, read_topic(brokers, topic, int(partitions), int(count)))
        ]
        ids = open_accounts(database_url, accounts_for(named))
        transfers = [(ids[sender], ids[receiver], amount) for sender, receiver, amount in named]
        calls = [transfers[at : at + TRANSFERS_PER_CALL] for at in range(0, len(transfers), TRANSFERS_PER_CALL)]
        shares = [calls[place :: int(clients)] for place in range(int(clients))]

        def work() -> dict[str, float]:
            in_threads(partial(_send, database_url, share) for share in shares)
            return {}

        return work

    serve(prepare)


if __name__ == "__main__":
    main(*sys.argv[1:])
