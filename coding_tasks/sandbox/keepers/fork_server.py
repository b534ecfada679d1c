"""The worker's side of the fork server: one for each worker process, started when first needed."""

import atexit
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from coding_tasks.sandbox.errors import WorkspaceFailed
from coding_tasks.sandbox.keepers.keeper import messages
from coding_tasks.sandbox.keepers.keeper.mounts import Plan

_ROOT = Path(__file__).parents[3]
"""The folder from which our packages are imported."""
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from coding_tasks.sandbox.keepers.keeper.fork_server import main; main()"
)


class ForkServer:
    """A process from which keepers are forked. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, plan: Plan, channel: int, lifeline: int) -> None:
        """Fork a keeper with these descriptors. Raises `WorkspaceFailed`."""
        order = messages.Open(asdict(plan))
        with self._lock:
            for _ in range(2):
                try:
                    messages.send(self._running(), order, [channel, lifeline])
                except OSError as error:  # it has died, so another one is started
                    self._stop()
                    failure = error
                else:
                    return
        raise WorkspaceFailed(f"no keeper can be started: {failure}")

    def stop(self) -> None:
        """End the process. Keepers go on."""
        with self._lock:
            self._stop()

    def _running(self) -> socket.socket:
        if self._control is not None and self._worker == os.getpid():
            return self._control
        ours, theirs = messages.channel()
        with theirs:
            # Without the worker's environment and files, which hold its secrets.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM),
                    *(str(_ROOT), str(theirs.fileno())),
                ],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._control, self._worker = ours, os.getpid()
        return ours

    def _stop(self) -> None:
        if self._control is not None and self._process is not None:
            self._control.close()
            if self._worker == os.getpid():
                self._process.wait()
        self._control = self._process = None


SERVER = ForkServer()
atexit.register(SERVER.stop)
