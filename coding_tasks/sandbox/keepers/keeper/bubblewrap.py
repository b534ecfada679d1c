"""Becomes bubblewrap, which reports its child and the end of the command by itself."""

import os
import resource
import socket

from coding_tasks.sandbox.keepers.keeper import child
from coding_tasks.sandbox.keepers.keeper.messages import Start

_GIVEN = ("--args", "3", "--seccomp", "4", "--json-status-fd", "5")


def execute(
    order: Start, descriptors: child.Descriptors, report: int, channel: socket.socket
) -> None:
    """Become bubblewrap. Raises OSError."""
    given = [os.fsencode(part) for part in _GIVEN]
    path, *arguments = child.read(descriptors.argv).split(b"\0")
    if order.network:
        child.open_door(order, channel)
    child.yield_to_the_worker()
    child.keep_only(
        descriptors.stdin,
        descriptors.stdout,
        descriptors.stderr,
        descriptors.arguments,
        descriptors.filter,
        report,
        *([] if descriptors.extra is None else [descriptors.extra]),
    )
    child.restore_signals()
    for which, limit in order.resources:
        resource.setrlimit(which, (limit, limit))
    os.execve(path, [path, *given, *arguments], {})  # noqa: S606 - no shell is wanted
