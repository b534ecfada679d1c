"""Metrics that every call counts in: plain numbers, handed to Prometheus a few times a second.

Its client takes a lock, and with several processes writes to a file, for each of them; that was one
twenty-fifth of a call's CPU. What a killed process did not hand over is lost.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

_buffered: "list[BufferedCounter | BufferedHistogram]" = []
_levels: dict[Gauge, Callable[[], float]] = {}


def flush() -> None:
    """Tell Prometheus what was counted since the last time, and what the levels are."""
    while _buffered:
        _buffered.pop().flush()
    for gauge, level in _levels.items():
        gauge.set(level())


def set_on_flush(gauge: Gauge, level: Callable[[], float]) -> None:
    """Let a gauge be what `level()` returns, as often as numbers are handed over."""
    _levels[gauge] = level


class BufferedCounter(Counter):
    """A counter whose increments wait."""

    _amount = 0.0
    _is_buffered = False

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count; exemplars are not kept."""
        if not self._is_buffered:
            self._is_buffered = True
            _buffered.append(self)
        self._amount += amount

    def flush(self) -> None:
        """Tell Prometheus."""
        self._is_buffered = False
        amount, self._amount = self._amount, 0.0
        super().inc(amount)


class BufferedHistogram(Histogram):
    """A histogram whose observations wait."""

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
        """Tell Prometheus."""
        self._is_buffered = False
        self._sum.inc(self._total)
        self._total = 0.0
        buckets: list[Any] = self._buckets
        for index, count in enumerate(self._counts):
            if count:
                buckets[index].inc(count)
                self._counts[index] = 0
