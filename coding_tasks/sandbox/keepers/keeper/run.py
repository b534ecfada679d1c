"""One command: the program that isolates it, as a child of the keeper, and everything below."""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from coding_tasks.sandbox.keepers.keeper import bubblewrap, gvisor, messages, usage
from coding_tasks.sandbox.keepers.keeper.child import Descriptors
from coding_tasks.sandbox.keepers.keeper.messages import Start

GVISOR = "gvisor"
_PROGRAMS: dict[str, Callable[[Start, Descriptors, int, socket.socket], None]] = {
    "bubblewrap": bubblewrap.execute,
    GVISOR: gvisor.execute,
}
_FILES_EVERY = 10
"""Open files are looked at in one of this many measurements, because there can be many."""
_GONE_WITHIN = 10_000
"""Milliseconds until the kernel has ended a process namespace."""


@dataclass
class Run:
    """A command that was started."""

    order: Start
    outer: int
    """The process id of the keeper's child, which stays outside."""
    status_pipe: int
    """Where the child reports, in JSON, the first process inside and that the command ran."""
    child: int = 0
    """The id of the first process inside, or 0 until it is reported."""
    inside: int | None = None
    """A descriptor of the first process inside. If it dies, the kernel ends all the others."""
    reported: bytes = b""
    killed: bool = False
    limit: str | None = None
    measured: int = 0
    files: int = 0
    """Bytes of files in memory, as last measured."""
    peak: usage.Usage = field(default_factory=usage.Usage)

    def read_report(self) -> bool:
        """Read what the child reports. Return whether more can follow."""
        data = os.read(self.status_pipe, 4096)
        self.reported += data
        if not self.child and b"\n" in self.reported:
            self.child = json.loads(self.reported.split(b"\n", 1)[0])["child-pid"]
            self._watch()
            if self.killed:
                self.kill()
        return bool(data)

    def _watch(self) -> None:
        """Open the first process inside. If it has ended already, all the others have, too."""
        with contextlib.suppress(ProcessLookupError):
            self.inside = os.pidfd_open(self.child)

    def kill(self) -> None:
        """End every process inside. If they are still being set up, do so then."""
        self.killed = True
        if self.inside is not None:
            try:
                signal.pidfd_send_signal(self.inside, signal.SIGKILL)
            except ProcessLookupError:
                return

    def measure(self, now: usage.Usage) -> None:
        """Note the usage, and end the command if it exceeds a limit."""
        if self.order.isolation == GVISOR:  # all memory inside is one file of the program
            now.memory = now.private + usage.memory_of_files(now.processes)
        else:
            if now.memory > self.order.memory:
                now.memory = usage.exact_memory(now.processes, self.order.memory)
            if self.measured % _FILES_EVERY == 0:
                self.files = usage.memory_of_files(now.processes)
            self.measured += 1
            now.memory += self.files
        self.peak.memory = max(self.peak.memory, now.memory)
        self.peak.cpu_seconds = max(self.peak.cpu_seconds, now.cpu_seconds)
        if self.killed:
            return
        if now.memory > self.order.memory:
            self.limit = "memory"
        elif now.cpu_seconds > self.order.cpu_seconds:
            self.limit = "cpu_seconds"
        if self.limit:
            self.kill()

    def finish(self, wait_status: int) -> messages.Finished:
        """Wait until no process is left inside, and say how the run ended."""
        more = True
        while more and not self.child:
            more = self.read_report()
        if self.inside is not None:
            self.kill_rest()
            os.close(self.inside)
        while more:  # only now, because processes left inside could have kept the pipe open
            more = self.read_report()
        os.close(self.status_pipe)
        status = os.waitstatus_to_exitcode(wait_status)
        return messages.Finished(
            run=self.order.run,
            status=None if self.killed else status,
            started=b"exit-code" in self.reported,
            limit=self.limit,
            cpu_seconds=self.peak.cpu_seconds,
            peak_memory=self.peak.memory,
        )

    def kill_rest(self) -> None:
        """End what a finished command left, and wait until the kernel has done so."""
        assert self.inside is not None
        try:
            signal.pidfd_send_signal(self.inside, signal.SIGKILL)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(self.inside, select.POLLIN)
        poll.poll(_GONE_WITHIN)


def start(order: Start, descriptors: Descriptors, channel: socket.socket) -> Run:
    """Start the program that isolates the command, as a child. Raises OSError."""
    report_reader, report_writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _PROGRAMS[order.isolation](order, descriptors, report_writer, channel)
        except OSError as error:
            os.write(descriptors.stderr, str(error).encode())
        finally:
            os._exit(126)
    os.close(report_writer)
    descriptors.close()
    return Run(order, child, report_reader)
