"""The flags."""

import argparse
from pathlib import Path

from peers.cases import all_cases

DESCRIPTION = """\
Millrace and its peers side by side: same machine, same servers, same transactions. Every peer once, then every peer
again, each into an empty database; then a table with medians. See benches/peers/README.md for what each one is."""


def parse(words: list[str]) -> argparse.Namespace:
    """Fails with a usage message for flags that there are not."""
    parser = argparse.ArgumentParser("benches/peers/run.sh", description=DESCRIPTION, allow_abbrev=False)
    names = ", ".join(case.name for case in all_cases("uniform"))
    only = f"of these: {names}; @SKEW may be left out"
    parser.add_argument("--count", type=_positive, default=1_000_000, help="transactions (default: %(default)s)")
    parser.add_argument("--runs", type=_positive, default=1, help="of each case (default: %(default)s)")
    parser.add_argument("--accounts", type=_positive, default=100_000, help="default: %(default)s")
    parser.add_argument("--partitions", type=_positive, default=12, help="default: %(default)s")
    parser.add_argument("--seed", type=_positive, default=1, help="default: %(default)s")
    parser.add_argument("--skew", default="uniform", help="uniform or zipf:EXPONENT (default: %(default)s)")
    parser.add_argument("--only", type=_names, default=[], metavar="NAME,..", help=only)
    parser.add_argument("--results", type=Path, metavar="FILE", help="append each run as a line of JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the table of saved results, run nothing")
    # Given by run.sh.
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--servers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--millrace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--connect-jars", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--connect-classes", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
