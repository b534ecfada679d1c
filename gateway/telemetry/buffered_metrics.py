"""Metrics that every call counts in: plain numbers, handed to Prometheus a few times a second.

Its client takes a lock, and with several processes writes to a file, for each of them; that was one
twenty-fifth of a call's CPU. What a killed process did not hand over is lost.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

_waiting: "list[TalliedCounter | TalliedHistogram]" = []
_levels: dict[Gauge, Callable[[], float]] = {}


def hand_over() -> None:
    """Tell Prometheus what was counted since the last time, and what the levels are."""
    while _waiting:
        _waiting.pop().hand_over()
    for gauge, level in _levels.items():
        gauge.set(level())


def show(gauge: Gauge, level: Callable[[], float]) -> None:
    """Let a gauge be what `level()` returns, as often as numbers are handed over."""
    _levels[gauge] = level


class TalliedCounter(Counter):
    """A counter whose increments wait."""

    _amount = 0.0
    _waits = False

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count; exemplars are not kept."""
        if not self._waits:
            self._waits = True
            _waiting.append(self)
        self._amount += amount

    def hand_over(self) -> None:
        """Tell Prometheus."""
        self._waits = False
        amount, self._amount = self._amount, 0.0
        super().inc(amount)


class TalliedHistogram(Histogram):
    """A histogram whose observations wait."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0
        self._waits = False

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count; exemplars are not kept."""
        if not self._waits:
            self._waits = True
            _waiting.append(self)
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def hand_over(self) -> None:
        """Tell Prometheus."""
        self._waits = False
        self._sum.inc(self._total)
        self._total = 0.0
        buckets: list[Any] = self._buckets
        for index, count in enumerate(self._counts):
            if count:
                buckets[index].inc(count)
                self._counts[index] = 0
