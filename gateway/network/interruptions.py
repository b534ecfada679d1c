"""Interrupting a call when its caller leaves, or when the caller or the provider is too slow.

Deadlines of all calls are checked together a few times a second, so that the chunks of streams need
no timers of their own.
"""

import asyncio
import time
from collections.abc import Callable

TICK_SECONDS = 0.25
# Registers what to call when the caller leaves; None cancels that.
OnDeparture = Callable[[Callable[[], None] | None], None]


class Watch:
    """Watches one call. Created in the call's task, which it interrupts by cancelling it."""

    __slots__ = ("_all", "_departure", "_drain", "_latest", "_task", "at", "left", "passed")

    def __init__(
        self, watches: "Watches", task: "asyncio.Task[None] | None", seconds: float
    ) -> None:
        self._all = watches
        self._task = task
        self._departure: OnDeparture | None = None
        self._drain = 0.0
        self._latest = float("inf")
        self.at = time.monotonic() + seconds
        self.left = False  # the caller left
        self.passed = False  # the deadline passed

    def expect_within(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self.at = min(time.monotonic() + seconds, self._latest)

    def listen(self, departure: OnDeparture, drain: float) -> None:
        """Watch for the caller leaving; the call may then go on for `drain` seconds."""
        self._departure, self._drain = departure, drain
        departure(self._depart)

    def _depart(self) -> None:
        if self._task is None:
            return  # the call ended at the same moment
        self.left = True
        if self._drain:
            self.at = self._latest = time.monotonic() + self._drain
        else:
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the call's task."""
        self._all.discard(self)
        if self._task is not None:
            self._task.cancel()

    def claim(self) -> bool:
        """Return whether this watch cancelled the task; if so, undo the cancellation."""
        if (self.left or self.passed) and self._task is not None:
            self._task.uncancel()
            return True
        return False

    def close(self) -> None:
        """Stop watching."""
        self._all.discard(self)
        self._task = None
        if self._departure is not None:
            self._departure(None)
            self._departure = None


class Watches:
    """The watches of one process. Must be created in its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> Watch:
        """Return a watch over the current task with a deadline in `seconds`."""
        watch = Watch(self, asyncio.current_task(self._loop), seconds)
        self._open.add(watch)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._look)
        return watch

    def discard(self, watch: Watch) -> None:
        """Remove a watch."""
        self._open.discard(watch)

    def _look(self) -> None:
        now = time.monotonic()
        for watch in [watch for watch in self._open if watch.at <= now]:
            watch.passed = True
            watch.interrupt()
        self._timer = self._loop.call_later(TICK_SECONDS, self._look) if self._open else None
