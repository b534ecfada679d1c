"""The worker's side of the keeper: start it, tell it what to run, and learn how runs end."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from coding_tasks.sandbox.errors import WorkspaceFailed, WorkspaceLost
from coding_tasks.sandbox.keepers.fork_server import SERVER
from coding_tasks.sandbox.keepers.keeper import messages
from coding_tasks.sandbox.keepers.keeper.messages import Failed, Finished, Listening, Ready
from coding_tasks.sandbox.keepers.keeper.mounts import Plan

_READY_WITHIN = 30.0
"""Seconds, on a very busy machine."""
_GONE_WITHIN = 5.0
"""Seconds for a keeper to end by itself. Its mounts are released meanwhile."""

OnListening = Callable[[socket.socket], None]


class KeeperProcess:
    """A running keeper. Use it from one event loop."""

    def __init__(self, channel: socket.socket, lifeline: int) -> None:
        self._channel = channel
        self._lifeline = lifeline
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        """The outer process of the keeper, or 0 before it has begun."""
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._runs: dict[int, asyncio.Future[Finished]] = {}
        self._listeners: dict[int, OnListening] = {}
        self._numbers = count(1)
        self._loop.add_reader(channel, self._receive)
        self._loop.add_reader(lifeline, self._watch)

    @classmethod
    async def spawn(cls, plan: Plan) -> "KeeperProcess":
        """Start a keeper for this plan. Raises `WorkspaceFailed`."""
        ours, theirs = messages.channel()
        ours.setblocking(False)
        lifeline, held = os.pipe()
        try:
            SERVER.fork(plan, theirs.fileno(), held)
        except WorkspaceFailed:
            ours.close()
            os.close(lifeline)
            raise
        finally:
            theirs.close()
            os.close(held)
        keeper = cls(ours, lifeline)
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
        """End every process of a run. If the keeper has died, they have ended already."""
        try:
            messages.send(self._channel, messages.Kill(run))
        except OSError:
            self._lose()

    async def close(self) -> None:
        """End every run and release the mounts. Returns when the keeper is gone."""
        self._lose()
        try:
            await asyncio.wait([self._gone], timeout=_GONE_WITHIN)
            if not self._gone.done() and self.pid:
                os.kill(self.pid, signal.SIGKILL)  # the kernel then ends the keeper inside
                await asyncio.wait([self._gone], timeout=_GONE_WITHIN)
        finally:
            self._loop.remove_reader(self._lifeline)
            os.close(self._lifeline)

    def _watch(self) -> None:
        if said := os.read(self._lifeline, 100):
            self.pid = int(said)
        elif not self._gone.done():
            self._loop.remove_reader(self._lifeline)
            self._gone.set_result(None)

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
                waiting.exception()  # otherwise asyncio complains if nobody awaits it
        self._runs.clear()
        self._listeners.clear()
