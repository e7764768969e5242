#!/usr/bin/env python3
"""What a correct load of the Berka file shows, computed from the raw rows alone.

Independent of Millrace on purpose: Python's standard library only, its own reading of the file, its
own arithmetic. Amounts are integers in haler (1 CZK = 100).

    berka_oracle.py FILE.csv.gz                  per account and per day, as JSON
    berka_oracle.py FILE.csv.gz --overdraft 0    the withdrawals that a limit of 0 refuses, as JSON

Without a limit:
    rows            good rows
    broken_lines    line numbers of the rows that are none
    accounts        account_id -> {"credits", "withdrawals", "count"}
    daily           "YYYY-MM-DD kind" -> {"count", "amount"}

With a limit L every account starts at 0 and its rows are replayed in the order of the file; exactly the
withdrawals are refused that would take the balance below -L:
    refused         their trans_ids, in the order of the file
    accounts        account_id -> {"credits", "withdrawals", "count"} of what was not refused
"""

import argparse
import csv
import datetime
import gzip
import json
import sys
from collections import defaultdict
from decimal import Decimal

COLUMNS = ["trans_id", "account_id", "date", "type", "operation",
           "amount", "balance", "k_symbol", "bank", "account"]

# As in producers/importer/maps/berka.toml.
KINDS = {
    "VKLAD": "cash_credit",
    "VYBER": "cash_withdrawal",
    "VYBER KARTOU": "card_withdrawal",
    "PREVOD Z UCTU": "transfer_in",
    "PREVOD NA UCET": "transfer_out",
    "": "interest",
}


def read_rows(path):
    """The good rows as dicts, and the line numbers of the others."""
    with gzip.open(path, "rb") as file:
        lines = file.read().decode("utf-8").split("\r\n")
    if lines[-1] == "":
        lines.pop()
    assert next(csv.reader([lines[0]], delimiter=";")) == COLUMNS, lines[0]
    rows, broken = [], []
    for number, line in enumerate(lines[1:], start=2):
        # No text of this file spans lines, so an odd number of quotes is a row that was cut off.
        values = next(csv.reader([line], delimiter=";"))
        if line.count('"') % 2 or len(values) != len(COLUMNS):
            broken.append(number)
        else:
            rows.append(dict(zip(COLUMNS, values)))
    return rows, broken


def haler(text):
    amount = Decimal(text) * 100
    assert amount > 0 and amount == amount.to_integral_value(), text
    return int(amount)


def is_credit(row):
    assert row["type"] in ("PRIJEM", "VYDAJ", "VYBER"), row
    return row["type"] == "PRIJEM"


def day(row):
    return datetime.datetime.strptime(row["date"], "%y%m%d").date().isoformat()


def add(accounts, row):
    account = accounts[row["account_id"]]
    account["credits" if is_credit(row) else "withdrawals"] += haler(row["amount"])
    account["count"] += 1


def empty_accounts():
    return defaultdict(lambda: {"credits": 0, "withdrawals": 0, "count": 0})


def totals(rows, broken):
    accounts = empty_accounts()
    daily = defaultdict(lambda: {"count": 0, "amount": 0})
    for row in rows:
        add(accounts, row)
        total = daily[f"{day(row)} {KINDS[row['operation'].strip()]}"]
        total["count"] += 1
        total["amount"] += haler(row["amount"])
    return {"rows": len(rows), "broken_lines": broken, "accounts": accounts, "daily": daily}


def replay(rows, limit):
    accounts, balances, refused = empty_accounts(), defaultdict(int), []
    for row in rows:
        account, amount = row["account_id"], haler(row["amount"])
        after = balances[account] + (amount if is_credit(row) else -amount)
        if not is_credit(row) and after < -limit:
            refused.append(row["trans_id"])
        else:
            balances[account] = after
            add(accounts, row)
    return {"refused": refused, "accounts": accounts}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--overdraft", type=int, metavar="L", help="overdraft limit in haler")
    args = parser.parse_args()
    rows, broken = read_rows(args.file)
    result = totals(rows, broken) if args.overdraft is None else replay(rows, args.overdraft)
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
