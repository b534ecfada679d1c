"""How much memory and processor time the processes of a command use, read from /proc."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What the processes of one command use together."""

    memory: int = 0
    """Bytes. An upper bound: shared pages and files count for each process that maps them."""
    cpu_seconds: float = 0.0
    processes: tuple[int, ...] = ()


def by_namespace() -> dict[str, Usage]:
    """Return the usage of the living processes by their process namespace.

    Time of processes that ended is counted in the one that waited for them.
    """
    found: dict[str, Usage] = {}
    for process in _processes():
        try:
            namespace = os.readlink(f"/proc/{process}/ns/pid")
            with open(f"/proc/{process}/stat", "rb") as stat:
                fields = stat.read().rsplit(b")", 1)[1].split()
            with open(f"/proc/{process}/statm", "rb") as statm:
                resident = int(statm.read().split()[1])
        except (OSError, IndexError, ValueError):  # it has ended
            continue
        usage = found.setdefault(namespace, Usage())
        usage.memory += resident * _PAGE
        usage.cpu_seconds += sum(map(int, fields[11:15])) / _TICKS
        usage.processes += (process,)
    return found


def exact_memory(processes: tuple[int, ...]) -> int:
    """Return the bytes that these processes use, with shared pages divided among their users.

    This takes longer than `by_namespace`.
    """
    total = 0
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", "rb") as rollup:
            total += sum(
                int(line.split()[1]) * 1024
                for line in rollup
                if line.startswith((b"Pss_Anon:", b"Pss_Shmem:"))
            )
    return total


def _processes() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)
