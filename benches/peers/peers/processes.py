"""CPU and memory of processes, from /proc (Linux). The same counts as benches/src/processes.rs."""

import os
from dataclasses import dataclass
from pathlib import Path

MICROS_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")

# How often a sum is tried again because a process ended meanwhile.
TRIES_MAX = 20


@dataclass(frozen=True)
class Stat:
    """One line of /proc/PID/stat. CPU is user and system time in microseconds."""

    parent: int
    own: int
    ended_children: int


def parse_stat(text: str) -> Stat:
    """See proc_pid_stat(5). The name, in parentheses, may hold anything; what follows it is numbers."""
    fields = text.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return Stat(
        parent=int(fields[1]),
        own=(user + system) * MICROS_PER_TICK,
        ended_children=(children_user + children_system) * MICROS_PER_TICK,
    )


def stat(pid: int) -> Stat:
    """Of a process that lives, or that has ended and was not waited for."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))


def cpu(pid: int) -> int:
    """CPU of a process without its children, in microseconds."""
    return stat(pid).own


def tree_cpu(root: int) -> int:
    """CPU of a process and all its children: those that live, and those that have ended."""
    for _ in range(TRIES_MAX):
        ended_before = stat(root).ended_children
        living = _tree_sum(root)
        if stat(root).ended_children == ended_before:
            return living + ended_before
    raise RuntimeError(f"children of process {root} end faster than their time can be read")


def peak_resident_kib(pid: int) -> int:
    """The most memory that a process has had resident."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError(f"no VmHWM in /proc/{pid}/status: the process has ended")


def machine_cpu() -> int:
    """CPU that the whole machine has spent since it started, and that its host took from it."""
    user, nice, system, _idle, _wait, irq, soft_irq, stolen = (
        int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split()[1:9]
    )
    return (user + nice + system + irq + soft_irq + stolen) * MICROS_PER_TICK


def _tree_sum(root: int) -> int:
    stats = _all_stats()
    total = stats[root].own
    parents = [root]
    while parents:
        parent = parents.pop()
        for pid, found in stats.items():
            if found.parent == parent:
                total += found.own + found.ended_children
                parents.append(pid)
    return total


def _all_stats() -> dict[int, Stat]:
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            try:
                stats[pid] = stat(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return stats
