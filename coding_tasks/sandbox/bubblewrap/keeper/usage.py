"""How much memory and processor time the processes of a command use, read from /proc."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512
"""Bytes, whatever the file system says."""
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


def exact_memory(processes: tuple[int, ...], enough: int) -> int:
    """Return the bytes that these processes use, with shared pages divided among their users.

    This takes longer than `by_namespace`, so it stops above `enough` bytes.
    """
    total = 0
    for process in processes:
        if total > enough:
            break
        with contextlib.suppress(OSError), open(f"/proc/{process}/smaps_rollup", "rb") as rollup:
            total += sum(
                int(line.split()[1]) * 1024
                for line in rollup
                if line.startswith((b"Pss_Anon:", b"Pss_Shmem:"))
            )
    return total


def memory_of_files(processes: tuple[int, ...]) -> int:
    """Return the bytes of files without a name that these processes hold open in memory.

    Such memory need not be mapped, so the other functions can miss it. What is in a socket on its
    way to a process is not found.
    """
    found: dict[int, int] = {}
    for process in processes:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor.path).startswith("/memfd:"):
                        file = os.stat(descriptor.path)
                        found[file.st_ino] = file.st_blocks * _BLOCK
    return sum(found.values())


def _processes() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield int(entry.name)
