"""Metrics that every call updates: buffered in plain numbers and flushed a few times a second.

The Prometheus client takes a lock for each update, and writes to a file if there are several
processes; that took 4 % of a call's CPU. Numbers that a killed process did not flush are lost.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

_buffered: "list[BufferedCounter | BufferedHistogram]" = []
_levels: dict[Gauge, Callable[[], float]] = {}


def flush() -> None:
    """Pass on what was counted since the last flush, and set the gauges of `set_on_flush`."""
    while _buffered:
        _buffered.pop().flush()
    for gauge, level in _levels.items():
        gauge.set(level())


def set_on_flush(gauge: Gauge, level: Callable[[], float]) -> None:
    """Set a gauge to `level()` at every flush."""
    _levels[gauge] = level


class BufferedCounter(Counter):
    """A counter whose increments wait for `flush`."""

    _amount = 0.0
    _is_buffered = False

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count; exemplars are not kept."""
        if not self._is_buffered:
            self._is_buffered = True
            _buffered.append(self)
        self._amount += amount

    def flush(self) -> None:
        """Pass on what was counted."""
        self._is_buffered = False
        amount, self._amount = self._amount, 0.0
        super().inc(amount)


class BufferedHistogram(Histogram):
    """A histogram whose observations wait for `flush`."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0
        self._is_buffered = False

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count; exemplars are not kept."""
        if not self._is_buffered:
            self._is_buffered = True
            _buffered.append(self)
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def flush(self) -> None:
        """Pass on what was counted."""
        self._is_buffered = False
        self._sum.inc(self._total)
        self._total = 0.0
        buckets: list[Any] = self._buckets
        for index, count in enumerate(self._counts):
            if count:
                buckets[index].inc(count)
                self._counts[index] = 0
