"""Measuring how long something waits, on a machine that may be busy or stand still."""

import threading
import time
from typing import Self

_TICK = 0.01


class Stopwatch:
    """Counts the seconds of a block in which this process could run: `seconds`, in all so far.

    Where a limit on time is the specification, what is measured is the code's own waiting and
    working. Time in which even a thread that wants nothing but to look at the clock got no turn
    is the machine's.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def _count(self) -> None:
        last = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(_TICK)
            now = time.monotonic()
            self.seconds += min(now - last, 2 * _TICK)
            last = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()
