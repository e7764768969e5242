"""See cli.DESCRIPTION."""

import argparse
import os
import signal
import sys
import traceback

from peers import cases, cli, conditions, record, report
from peers.binary import Millrace
from peers.connect import Connect
from peers.harness import Harness
from peers.record import Record
from peers.servers import Servers
from peers.workload import Workload


def main(words: list[str]) -> int:
    """Prints the table; fails when a run did, or its result was wrong."""
    flags = cli.parse(words)
    if flags.report:
        try:
            print(report.markdown(record.read(flags.report)))
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0
    # So that services are stopped and databases dropped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        chosen = cases.choose(cases.all_cases(flags.skew), flags.only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 64
    records, failed = measure(flags, chosen)
    print(f"\n{report.markdown(records)}")
    return 1 if failed or any(kept.failures for kept in records) else 0


def measure(flags: argparse.Namespace, chosen: list[cases.Case]) -> tuple[list[Record], bool]:
    """Every case once, then every case again: a machine that drifts drifts for all of them."""
    servers = Servers.of(flags.servers)
    flags.work.mkdir(parents=True, exist_ok=True)
    millrace = Millrace(flags.millrace, servers, flags.work)
    class_path = f"{flags.connect_classes}:{flags.connect_jars}/*"
    kept = conditions.read(servers, millrace.version(), flags.connect_jars)
    harness = Harness(servers, millrace, Connect(servers, class_path, flags.work), flags.work, kept)

    topics: dict[str, tuple[str, Workload]] = {}
    records, failed = [], False
    total = len(chosen) * flags.runs
    try:
        for place, case in enumerate(chosen * flags.runs):
            if case.skew not in topics:
                topics[case.skew] = publish(flags, millrace, case.skew)
            topic, workload = topics[case.skew]
            progress = f"[{place + 1}/{total}] {case.name}"
            try:
                done = harness.run(case, workload, topic, f"peers_{os.getpid()}_{place}")
            except Exception:  # whatever it is: the other peers' runs are not lost with it
                print(f"{progress}: FAILED: {traceback.format_exc()}", flush=True)
                failed = True
                continue
            print(f"{progress}: {report.summary(done)}", flush=True)
            records.append(done)
            if flags.results:
                record.append(flags.results, done)
    finally:
        for topic, _ in topics.values():
            servers.delete_topic(topic)
    return records, failed


def publish(flags: argparse.Namespace, millrace: Millrace, skew: str) -> tuple[str, Workload]:
    """The one topic of a skew, that all its cases drain."""
    workload = Workload(flags.count, flags.accounts, flags.partitions, skew, flags.seed)
    topic = f"peers-{os.getpid()}-{skew.replace(':', '-')}"
    millrace.publish(topic, workload)
    return topic, workload


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
