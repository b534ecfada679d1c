"""What a child of the keeper does before it becomes a program that isolates a command."""

import contextlib
import fcntl
import os
import signal
import socket
from dataclasses import dataclass

from coding_tasks.sandbox.keepers.keeper import kernel, messages
from coding_tasks.sandbox.keepers.keeper.messages import Start

NICENESS = 5
"""The worker and its relays go first when the processor is busy."""


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that come with `Start`. The keeper closes its copies after the start."""

    arguments: int
    """Arguments for bubblewrap, or a bundle for gVisor. They can contain secrets."""
    argv: int
    """The program's own path and visible arguments, NUL-separated."""
    filter: int
    """A compiled seccomp filter, for bubblewrap."""
    stdin: int
    stdout: int
    stderr: int
    extra: int | None = None
    """Any file that the arguments refer to."""

    def close(self) -> None:
        """Close all of them."""
        for descriptor in vars(self).values():
            if descriptor is not None:
                os.close(descriptor)


def open_door(order: Start, channel: socket.socket) -> None:
    """Listen at the door in a network of this process's own, and let the worker accept there."""
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.raise_loopback()
    door = socket.socket()
    door.bind(("127.0.0.1", order.port))
    door.listen(128)
    messages.send(channel, messages.Listening(order.run), [door.fileno()])


def yield_to_the_worker() -> None:
    """Run at a lower priority than the worker, and be the first to end if memory runs out."""
    # A worker that is nicer already must not get less nice.
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    with open("/proc/self/oom_score_adj", "w") as preference:
        preference.write("1000")


def keep_only(*descriptors: int) -> None:
    """Number these from 0 and close all others, because programs inherit what is open."""
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in descriptors]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= len(above):
            with contextlib.suppress(OSError):  # the one that read the list
                os.close(int(name))


def restore_signals() -> None:
    """Undo what Python ignores, so that programs don't inherit it."""
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)


def read(descriptor: int) -> bytes:
    """Return the whole of a file."""
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()
