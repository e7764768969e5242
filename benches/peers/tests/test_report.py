"""The table, and what it is made of."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from peers import cases, record, report
from peers.record import Figures, Record

FIGURES = Figures(
    events_per_s=1000.0,
    peer_us=1.0,
    peer_started_us=0.75,
    postgres_us=2.0,
    kafka_us=0.5,
    wal_bytes=100.0,
    peer_peak_mib=64.0,
    wall_s=1.0,
    commits=3,
    others_percent=4.0,
)
RECORD = Record("2026-01-01T00:00:00Z", "debezium-upsert", "uniform", 1000, 10, 2, 1, 1000, FIGURES)


def cells(markdown: str, peer: str) -> list[str]:
    """The row of a peer."""
    row = next(line for line in markdown.splitlines() if line.startswith(f"| {peer} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


class Table(unittest.TestCase):
    """What stands in it."""

    def test_the_median_of_runs_stands_with_the_least_and_the_most(self) -> None:
        rates = (3000.0, 1000.0, 2000.0)
        runs = [replace(RECORD, figures=replace(FIGURES, events_per_s=rate)) for rate in rates]
        self.assertEqual(cells(report.markdown(runs), "debezium-upsert")[3:5], ["3", "**2,000** (1,000–3,000)"])

    def test_the_cpu_of_all_is_added_run_by_run(self) -> None:
        self.assertEqual(cells(report.markdown([RECORD]), "debezium-upsert")[9], "3.5")

    def test_what_a_small_client_has_not_is_left_out(self) -> None:
        client = replace(RECORD, peer="copy-1", figures=replace(FIGURES, peer_started_us=None))
        markdown = report.markdown([RECORD, client])
        self.assertEqual([cells(markdown, peer)[6] for peer in ("debezium-upsert", "copy-1")], ["0.8", ""])

    def test_runs_of_another_skew_or_count_are_rows_of_their_own(self) -> None:
        runs = [RECORD, replace(RECORD, skew="zipf:2.0"), replace(RECORD, count=2000)]
        rows = [line for line in report.markdown(runs).splitlines() if line.startswith("| debezium-upsert |")]
        self.assertEqual(len(rows), 3)

    def test_a_wrong_result_shows(self) -> None:
        markdown = report.markdown([replace(RECORD, failures=["999 of 1000 arrived"])])
        self.assertEqual(cells(markdown, "debezium-upsert")[-1], "fail")
        self.assertIn("999 of 1000 arrived", markdown)

    def test_every_peer_but_millrace_says_what_it_does_not_do(self) -> None:
        silent = [peer.name for peer in cases.PEERS if not peer.does_not]
        self.assertEqual(silent, ["millrace", "millrace-limits"])
        self.assertIn(f"Does not do: {cases.PEERS[1].does_not}", report.markdown([RECORD]))

    def test_no_runs_are_no_failure(self) -> None:
        self.assertEqual(report.markdown([]), "no runs")


class Kept(unittest.TestCase):
    """Lines of JSON."""

    def test_a_line_gives_the_record_back(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "results" / "peers.jsonl"
            record.append(file, RECORD)
            record.append(file, RECORD)
            self.assertEqual(record.read(file), [RECORD, RECORD])

    def test_what_follows_a_line_that_was_cut_off_is_a_line_of_its_own(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "peers.jsonl"
            record.append(file, RECORD)
            file.write_text(file.read_text().removesuffix("\n"))
            record.append(file, RECORD)
            self.assertEqual(record.read(file), [RECORD, RECORD])


class Choice(unittest.TestCase):
    """--only."""

    def test_a_name_chooses_every_skew_of_a_peer_and_a_full_name_one(self) -> None:
        everything = cases.all_cases("uniform")
        chosen = cases.choose(everything, ["millrace", "pgledger@zipf:2.0"])
        self.assertEqual([case.name for case in chosen], ["millrace@uniform", "millrace@zipf:2.0", "pgledger@zipf:2.0"])

    def test_a_name_that_is_none_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "no such peer: kafka"):
            cases.choose(cases.all_cases("uniform"), ["kafka"])

    def test_the_steep_skew_is_not_run_twice(self) -> None:
        names = [case.name for case in cases.all_cases("zipf:2.0")]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
