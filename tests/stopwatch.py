"""Measure how long something waits, on a machine that can be busy or stand still."""

import threading
import time
from typing import Self

_TICK = 0.01


class Stopwatch:
    """Counts the seconds of a block in which this process could run (`seconds`).

    If a test has a time limit, it should measure the time of the code, not of the machine. So time
    in which even a thread that only reads the clock could not run is left out.
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
