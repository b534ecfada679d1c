"""The worker's side of the keeper: start it, tell it what to run, hear how runs end."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from coding_tasks.sandbox.bubblewrap.keeper import messages
from coding_tasks.sandbox.bubblewrap.keeper.messages import Failed, Finished, Listening, Ready
from coding_tasks.sandbox.bubblewrap.keeper.mounts import Plan
from coding_tasks.sandbox.errors import WorkspaceFailed, WorkspaceLost

_ROOT = Path(__file__).parents[3]
"""The folder from which our packages are imported."""
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from coding_tasks.sandbox.bubblewrap.keeper.main import main; main()"
)
_READY_WITHIN = 30.0
"""Seconds, on a very busy machine."""
_GONE_WITHIN = 5.0
"""Seconds for a keeper to end by itself. Its mounts are released meanwhile."""

OnListening = Callable[[socket.socket], None]


class KeeperProcess:
    """A running keeper. Use it from one event loop."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._runs: dict[int, asyncio.Future[Finished]] = {}
        self._listeners: dict[int, OnListening] = {}
        self._numbers = count(1)
        self._loop.add_reader(channel, self._receive)

    @classmethod
    async def spawn(cls, plan: Plan) -> "KeeperProcess":
        """Start a keeper for this plan. Raises `WorkspaceFailed`."""
        ours, theirs = messages.channel()
        ours.setblocking(False)
        with theirs:
            try:
                # Without the worker's environment and files, which hold its secrets.
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - it doesn't block for long
                    [
                        *(sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOT)),
                        *(str(theirs.fileno()), json.dumps(asdict(plan))),
                    ],
                    env={},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise WorkspaceFailed(f"the keeper cannot be started: {error}") from error
        keeper = cls(process, ours)
        try:
            await asyncio.wait_for(keeper._ready, _READY_WITHIN)
        except BaseException as error:
            await keeper.close()
            if isinstance(error, TimeoutError | WorkspaceLost):
                raise WorkspaceFailed("the keeper did not become ready") from error
            raise
        return keeper

    def start(
        self,
        order: Callable[[int], messages.Start],
        descriptors: Sequence[int],
        on_listening: OnListening | None = None,
    ) -> tuple[int, asyncio.Future[Finished]]:
        """Start a run; return its number and how it will end. Raises `WorkspaceLost`."""
        number = next(self._numbers)
        finished: asyncio.Future[Finished] = self._loop.create_future()
        self._runs[number] = finished
        if on_listening is not None:
            self._listeners[number] = on_listening
        try:
            messages.send(self._channel, order(number), descriptors)
        except OSError as error:
            self._lose()
            raise WorkspaceLost("the keeper has died") from error
        return number, finished

    def kill(self, run: int) -> None:
        """End every process of a run, unless the keeper has died, and so have they."""
        try:
            messages.send(self._channel, messages.Kill(run))
        except OSError:
            self._lose()

    async def close(self) -> None:
        """End every run and release the mounts. Returns when the keeper is gone."""
        self._lose()
        ended = self._loop.create_future()
        watched = os.pidfd_open(self._process.pid)
        self._loop.add_reader(watched, lambda: ended.done() or ended.set_result(None))
        try:
            await asyncio.wait([ended], timeout=_GONE_WITHIN)
            if not ended.done():
                self._process.kill()  # the kernel then ends the keeper inside
                await ended
        finally:
            self._loop.remove_reader(watched)
            os.close(watched)
        self._process.wait()

    def _receive(self) -> None:
        try:
            received = messages.receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._lose()
            return
        message, descriptors = received
        match message:
            case Ready() if not self._ready.done():
                self._ready.set_result(None)
            case Failed(reason=reason) if not self._ready.done():
                self._ready.set_exception(WorkspaceFailed(reason))
            case Listening(run=run) if run in self._listeners:
                self._listeners.pop(run)(socket.socket(fileno=descriptors.pop()))
            case Finished(run=run):
                self._listeners.pop(run, None)
                finished = self._runs.pop(run, None)
                if finished is not None and not finished.done():
                    finished.set_result(message)
        for unused in descriptors:
            os.close(unused)

    def _lose(self) -> None:
        """Forget the keeper, which has ended or will end because its channel closes."""
        if self._channel.fileno() < 0:
            return
        self._loop.remove_reader(self._channel)
        self._channel.close()
        lost = WorkspaceLost("the workspace's keeper has died")
        everybody: list[asyncio.Future[Any]] = [self._ready, *self._runs.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(lost)
                waiting.exception()  # nobody has to ask
        self._runs.clear()
        self._listeners.clear()
