"""A command that runs in a workspace: its output, its end, and what ends it early."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, Protocol

from coding_tasks.sandbox.door.relay import Relay
from coding_tasks.sandbox.errors import WorkspaceFailed
from coding_tasks.sandbox.interface import Ended, Limit, Limits, Line
from coding_tasks.sandbox.lines import LineSplitter

_CHUNK = 16_384
LINE_COST = 64
"""Bytes of output that each line counts as, besides its own, because it takes time to handle."""
_WAITING = 16
"""Chunks that wait for a slow reader, before the command has to wait."""
_EXPLANATION = 2_000
_BY_SIGNAL = 128

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


class RunEnd(Protocol):
    """How a run ended, as the keeper or the engine saw it. None of its processes is left."""

    @property
    def status(self) -> int | None:
        """The exit status, negative if a signal ended the sandbox, or None if we ended it."""

    @property
    def started(self) -> bool:
        """Whether the sandbox was set up, so that the command was at least tried."""

    @property
    def limit(self) -> str | None:
        """The limit that ended it."""

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time, as last sampled."""

    @property
    def peak_memory(self) -> int:
        """Bytes, as sampled."""


class RunningCommand:
    """See `coding_tasks.sandbox.interface.Process`."""

    def __init__(self, limits: Limits, relay: Relay | None, line_cost: int = LINE_COST) -> None:
        self._limits = limits
        self._relay = relay
        self._limit: Limit | None = None
        self._stopped = False
        self._ended: Ended | None = None
        self._chunks: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue(_WAITING)
        self._left = limits.output
        self._line_cost = line_cost
        self._tail = b""
        """The last of standard error, in case the sandbox itself failed."""
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[RunEnd]
        self._kill: Callable[[], None]

    def follow(
        self,
        finished: asyncio.Future[Any],
        outputs: Mapping[Stream, int],
        kill: Callable[[], None],
    ) -> None:
        """Follow a run that was just started, and read its pipes, which this object then owns.

        `finished` gets a `RunEnd`. `kill` begins to end the run.
        """
        self._finished, self._kill = finished, kill
        finished.add_done_callback(lambda _: self._close_door())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.seconds, self._exceed, Limit.SECONDS)
        readers = [loop.create_task(self._read(stream, pipe)) for stream, pipe in outputs.items()]
        self._tasks = [*readers, loop.create_task(self._end_chunks(readers))]

    async def lines(self) -> AsyncIterator[Line]:
        """See `Process.lines`."""
        splitters = {stream: LineSplitter(stream, self._limits.line) for stream in STREAMS}
        async for stream, data in self.chunks():
            for line in splitters[stream].feed(data):
                yield line
        for splitter in splitters.values():
            for line in splitter.end():
                yield line

    async def chunks(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Iterate over the output as it comes. Use either this or `lines`."""
        while chunk := await self._chunks.get():
            yield chunk
        await self._chunks.put(None)  # so that a later call ends, too

    async def wait(self) -> Ended:
        """See `Process.wait`."""
        await self._drop()
        finished = await asyncio.shield(self._finished)
        if self._ended is None:
            self._ended = self._how(finished)
        return self._ended

    @property
    def complaint(self) -> str:
        """Return the end of standard error so far."""
        return self._tail.decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """See `Process.kill`."""
        if not self._finished.done() and self._limit is None:
            self._stopped = True
        self._end()

    async def close(self) -> None:
        """End what is left and release the pipes."""
        self.kill()
        if self._timer is not None:
            self._timer.cancel()
        # An engine does not end a container whose output somebody is yet to read.
        dropping = asyncio.create_task(self._drop())
        await asyncio.wait([self._finished])
        for task in (*self._tasks, dropping):
            task.cancel()
        await asyncio.gather(*self._tasks, dropping, return_exceptions=True)
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._chunks.put_nowait(None)
        if self._relay is not None:
            await self._relay.closed()

    async def _drop(self) -> None:
        """Read what is left of the output."""
        async for _ in self.chunks():
            pass

    def _end(self) -> None:
        self._close_door()
        if not self._finished.done():
            self._kill()

    def _exceed(self, limit: Limit) -> None:
        if not self._finished.done() and not self._stopped and self._limit is None:
            self._limit = limit
            self._end()

    def _close_door(self) -> None:
        if self._relay is not None:
            self._relay.close()

    async def _read(self, stream: Stream, pipe: int) -> None:
        reader = asyncio.StreamReader(_CHUNK)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0)
        )
        try:
            while data := await reader.read(_CHUNK):
                data = data[: max(0, self._left)]
                self._left -= len(data) + self._line_cost * data.count(b"\n")
                if stream == "stderr":
                    self._tail = (self._tail + data)[-_EXPLANATION:]
                await self._chunks.put((stream, data))
                if self._left <= 0:
                    self._exceed(Limit.OUTPUT)
                    return
        finally:
            transport.close()

    async def _end_chunks(self, readers: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(readers)
        await self._chunks.put(None)

    def _how(self, finished: RunEnd) -> Ended:
        status = finished.status
        if status is not None and status < 0:  # the kernel ended the sandbox, for lack of memory
            status = _BY_SIGNAL - status
        elif not finished.started and status is not None and not self._stopped:
            if "execvp" in self.complaint:  # the sandbox stands, but the program is missing
                return Ended(127)
            raise WorkspaceFailed(f"the sandbox could not be set up: {self.complaint}")
        limit = self._limit or (Limit(finished.limit) if finished.limit else None)
        return Ended(
            status=None if limit or self._stopped else status,
            limit=limit,
            stopped=self._stopped,
            cpu_seconds=finished.cpu_seconds,
            peak_memory=finished.peak_memory,
        )
