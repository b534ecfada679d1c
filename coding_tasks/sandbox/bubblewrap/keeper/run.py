"""One command: bubblewrap as a child of the keeper, and everything below it."""

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
from dataclasses import dataclass, field

from coding_tasks.sandbox.bubblewrap.keeper import kernel, messages, usage
from coding_tasks.sandbox.bubblewrap.keeper.messages import Start

_GIVEN = ("--args", "3", "--seccomp", "4", "--json-status-fd", "5")
NICENESS = 5
"""The worker and its relays go first when the processor is busy."""
_FILES_EVERY = 10
"""Open files are looked at in one of this many measurements, because there can be many."""
_GONE_WITHIN = 10_000
"""Milliseconds until the kernel has ended a process namespace."""


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that come with `Start`. The keeper closes its copies after the start."""

    arguments: int
    """NUL-separated arguments for bubblewrap, which can hold secrets."""
    argv: int
    """bubblewrap's own path and visible arguments, then the command, NUL-separated."""
    filter: int
    """The compiled seccomp filter."""
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


@dataclass
class Run:
    """A command that was started."""

    order: Start
    bubblewrap: int
    """The process id of bubblewrap itself, which stays outside."""
    status_pipe: int
    """Where bubblewrap reports, in JSON, the first process inside and that the command ran."""
    child: int = 0
    """The first process inside, once it was reported."""
    inside: int | None = None
    """A descriptor of the first process inside. If it dies, the kernel ends all the others."""
    namespace: str = ""
    reported: bytes = b""
    killed: bool = False
    limit: str | None = None
    measured: int = 0
    files: int = 0
    """Bytes of files in memory, as last looked for."""
    peak: usage.Usage = field(default_factory=usage.Usage)

    def read_report(self) -> bool:
        """Read what bubblewrap reports. Return whether more can follow."""
        data = os.read(self.status_pipe, 4096)
        self.reported += data
        if not self.child and b"\n" in self.reported:
            self.child = json.loads(self.reported.split(b"\n", 1)[0])["child-pid"]
            self._watch()
            if self.killed:
                self.kill()
        return bool(data)

    def _watch(self) -> None:
        """Note the first process inside, unless it has ended already, and all others with it."""
        with contextlib.suppress(ProcessLookupError):
            self.inside = os.pidfd_open(self.child)
        with contextlib.suppress(OSError):
            self.namespace = os.readlink(f"/proc/{self.child}/ns/pid")

    def kill(self) -> None:
        """End every process inside. If bubblewrap is still being set up, do so when it stands."""
        self.killed = True
        if self.inside is not None:
            try:
                signal.pidfd_send_signal(self.inside, signal.SIGKILL)
            except ProcessLookupError:
                return

    def measure(self, now: usage.Usage) -> None:
        """Note the usage, and end the command if it exceeds a limit."""
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
        while more:  # what is left inside may hold the pipe, so only now
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
    """Start bubblewrap as a child. Raises OSError."""
    report_reader, report_writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become_bubblewrap(order, descriptors, report_writer, channel)
        except OSError as error:
            os.write(descriptors.stderr, str(error).encode())
        finally:
            os._exit(126)
    os.close(report_writer)
    descriptors.close()
    return Run(order, child, report_reader)


def _become_bubblewrap(
    order: Start, descriptors: Descriptors, report: int, channel: socket.socket
) -> None:
    given = [os.fsencode(part) for part in _GIVEN]
    path, *arguments = _read(descriptors.argv).split(b"\0")
    if order.network:
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.raise_loopback()
        door = socket.socket()
        door.bind(("127.0.0.1", order.port))
        door.listen(128)
        messages.send(channel, messages.Listening(order.run), [door.fileno()])
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with open("/proc/self/oom_score_adj", "w") as preference:
        preference.write("1000")  # if memory runs out, the kernel ends this first
    _keep_only(
        descriptors.stdin,
        descriptors.stdout,
        descriptors.stderr,
        descriptors.arguments,
        descriptors.filter,
        report,
        *([] if descriptors.extra is None else [descriptors.extra]),
    )
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    for which, limit in order.resources:
        resource.setrlimit(which, (limit, limit))
    os.execve(path, [path, *given, *arguments], {})  # noqa: S606 - no shell is wanted


def _keep_only(*descriptors: int) -> None:
    """Number these from 0 and close all others, because bubblewrap passes on what it has."""
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in descriptors]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= len(above):
            with contextlib.suppress(OSError):  # the one that read the list
                os.close(int(name))


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()
