"""What the small clients share. Each is a program of its own, so that its CPU and memory can be told from the harness'.

It prepares, prints "ready", waits for a line, does its work, prints one JSON object and waits for the end of its
standard input: only then its process may end, for its costs are read from /proc while it lives.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable


def serve(prepare: Callable[[], Callable[[], dict[str, float]]]) -> None:
    """`prepare` returns the work; that returns what it has to tell."""
    work = prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(work()), flush=True)
    sys.stdin.read()


def in_threads(jobs: Iterable[Callable[[], None]]) -> None:
    """Runs all at once; the first failure is raised when all have ended."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:  # noqa: BLE001, raised below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
