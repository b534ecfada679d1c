"""How much memory and processor time the processes of a command use, read from /proc."""

import contextlib
import os
from collections.abc import Collection, Iterator
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
    private: int = 0
    """The part of `memory` that is neither shared memory nor files. Bytes, like `memory`."""
    cpu_seconds: float = 0.0
    processes: tuple[int, ...] = ()

    def add(self, other: "Usage") -> None:
        """Add the usage of other processes."""
        self.memory += other.memory
        self.private += other.private
        self.cpu_seconds += other.cpu_seconds
        self.processes += other.processes


def below(ancestors: Collection[int]) -> dict[int, Usage]:
    """Return the usage of these processes and of their living descendants.

    The time of a process that ended counts for the one that waited for it. The first process of a
    process namespace is an ancestor of all the others there.
    """
    parents: dict[int, int] = {}
    used: dict[int, Usage] = {}
    for process in _processes():
        try:
            with open(f"/proc/{process}/stat", "rb") as stat:
                fields = stat.read().rsplit(b")", 1)[1].split()
            with open(f"/proc/{process}/statm", "rb") as statm:
                _, resident, shared, *_ = map(int, statm.read().split())
        except (OSError, IndexError, ValueError):  # it has ended
            continue
        parents[process] = int(fields[1])
        seconds = sum(map(int, fields[11:15])) / _TICKS
        used[process] = Usage(resident * _PAGE, (resident - shared) * _PAGE, seconds, (process,))
    found = {ancestor: Usage() for ancestor in ancestors}
    for process, usage in used.items():
        above: int | None = process
        while above is not None and above not in found:
            above = parents.get(above)
        if above is not None:
            found[above].add(usage)
    return found


def exact_memory(processes: tuple[int, ...], enough: int) -> int:
    """Return the bytes that these processes use, with shared pages divided among their users.

    This takes longer than `below`, so it stops above `enough` bytes.
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
