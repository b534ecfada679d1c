"""What may interrupt a call: its caller leaves, or somebody takes too long.

Deadlines are looked at a few times a second for all calls together: a timer for every chunk of
every stream would cost more than passing the chunk on.
"""

import asyncio

from gateway.call import Receive

TICK_SECONDS = 0.25


class Watch:
    """The watch over one call; made in the task that it may interrupt, by cancelling it."""

    __slots__ = ("_all", "_latest", "_listening", "_loop", "_task", "at", "left", "passed")

    def __init__(self, watches: "Watches", seconds: float) -> None:
        self._all = watches
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._listening: asyncio.Task[None] | None = None
        self._latest = float("inf")
        self.at = self._loop.time() + seconds
        self.left = False  # the caller did
        self.passed = False  # the deadline did

    def expect_within(self, seconds: float) -> None:
        """Move the deadline."""
        self.at = min(self._loop.time() + seconds, self._latest)

    def listen(self, receive: Receive, drain: float) -> None:
        """Notice when the caller leaves, which an ASGI server tells only to those who ask.

        The call may then go on for `drain` seconds.
        """
        self._listening = asyncio.create_task(self._listen(receive, drain))

    async def _listen(self, receive: Receive, drain: float) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if drain:
            self.at = self._latest = self._loop.time() + drain
        else:
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the call's task."""
        self._all.discard(self)
        if self._task is not None:
            self._task.cancel()

    def claim(self) -> bool:
        """Tell whether a cancellation came from here; then it is taken back."""
        if (self.left or self.passed) and self._task is not None:
            self._task.uncancel()
            return True
        return False

    def close(self) -> None:
        """End the watch."""
        self._all.discard(self)
        self._task = None
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None  # each would keep the other from being freed


class Watches:
    """The watches of one process."""

    def __init__(self) -> None:
        self._open: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> Watch:
        """Watch over the current task, which has so many seconds."""
        watch = Watch(self, seconds)
        self._open.add(watch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look)
        return watch

    def discard(self, watch: Watch) -> None:
        """Watch over it no longer."""
        self._open.discard(watch)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for watch in [watch for watch in self._open if watch.at <= now]:
            watch.passed = True
            watch.interrupt()
        self._timer = loop.call_later(TICK_SECONDS, self._look) if self._open else None
