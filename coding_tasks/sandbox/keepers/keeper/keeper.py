"""The keeper: make the workspace, start and end commands, die when the worker does."""

import os
import selectors
import signal
import socket
import time

from coding_tasks.sandbox.keepers.keeper import kernel, messages, mounts, usage
from coding_tasks.sandbox.keepers.keeper.child import Descriptors
from coding_tasks.sandbox.keepers.keeper.messages import Kill, Start
from coding_tasks.sandbox.keepers.keeper.run import Run, start

MEASURE_EVERY = 0.1
"""Seconds between looks at the usage of commands."""
_SHARE_OF_TIME = 10
"""Looking takes at most one part of this many of the keeper's time."""


class Keeper:
    """Holds one workspace. Ends when the channel to the worker closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._runs: dict[int, Run] = {}
        self._pause = MEASURE_EVERY
        self._measured = 0.0

    def work(self) -> None:
        """Serve the worker until it is gone."""
        wakeup, wake = socket.socketpair()
        wake.setblocking(False)
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._channel, selectors.EVENT_READ, "channel")
        self._selector.register(wakeup, selectors.EVENT_READ, "child")
        while True:
            for key, _ in self._selector.select(self._pause if self._runs else None):
                if key.data == "channel":
                    if not self._obey():
                        return
                elif key.data == "child":
                    wakeup.recv(4096)
                elif not key.data.read_report():
                    self._selector.unregister(key.fd)
            self._reap()
            if self._runs and time.monotonic() - self._measured >= self._pause:
                self._measure()

    def _obey(self) -> bool:
        """Carry out one message. Return whether the worker is still there."""
        received = messages.receive(self._channel)
        if received is None:
            return False
        message, descriptors = received
        if isinstance(message, Start):
            run = start(message, Descriptors(*descriptors), self._channel)
            self._runs[run.outer] = run
            self._selector.register(run.status_pipe, selectors.EVENT_READ, run)
        elif isinstance(message, Kill):
            for run in self._runs.values():
                if run.order.run == message.run:
                    run.kill()
        return True

    def _reap(self) -> None:
        """Reap what ended. The keeper is the first process of its namespace, so all are its own."""
        while self._runs:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                return
            if run := self._runs.pop(ended, None):
                if run.status_pipe in self._selector.get_map():
                    self._selector.unregister(run.status_pipe)
                messages.send(self._channel, run.finish(status))

    def _measure(self) -> None:
        began = time.monotonic()
        found = usage.below({run.child for run in self._runs.values() if run.child})
        for run in self._runs.values():
            run.measure(found.get(run.child, usage.Usage()))
        self._measured = time.monotonic()
        self._pause = max(MEASURE_EVERY, _SHARE_OF_TIME * (self._measured - began))


def keep(plan: mounts.Plan, channel: socket.socket, lifeline: int) -> int:
    """Become a keeper until the worker closes the channel; return the exit status.

    Two processes are needed: the first process of a process namespace is a child of the one that
    makes it. The outer one writes its id to the lifeline, and holds it until the inner one, and
    with it everything in the workspace, has ended.
    """
    os.write(lifeline, f"{os.getpid()}\n".encode())
    try:
        mounts.enter(plan)
        if child := os.fork():
            channel.close()
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(lifeline)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        mounts.mount_storage(plan)
    except OSError as error:
        messages.send(channel, messages.Failed(str(error)))
        return 1
    messages.send(channel, messages.Ready())
    Keeper(channel).work()
    return 0
