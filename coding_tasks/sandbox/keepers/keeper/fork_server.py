"""The program from which keepers are forked, so that they start at once and share its memory."""

import gc
import os
import signal
import socket
import sys

from coding_tasks.sandbox.keepers.keeper import messages, mounts
from coding_tasks.sandbox.keepers.keeper.keeper import keep
from coding_tasks.sandbox.keepers.keeper.messages import Open


def main() -> None:
    """Fork a keeper for each request, until the worker closes the socket named by the argument."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the kernel reaps keepers
    # Without garbage collections, keepers leave the shared memory as it is.
    gc.collect()
    gc.freeze()
    gc.disable()
    while received := messages.receive(control):
        order, descriptors = received
        if isinstance(order, Open):
            if os.fork() == 0:
                control.close()
                _become_keeper(order, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _become_keeper(order: Open, channel: int, lifeline: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        status = keep(mounts.read_plan(order.plan), socket.socket(fileno=channel), lifeline)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
