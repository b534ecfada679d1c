"""Rank who used most. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.reports.sums import NOTHING, Used


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of those who used most, with their share of the total in percent, rounded down."""

    key: Any
    used: Used
    percent: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Those who used most, and all others together. Both add up to `total`."""

    top: tuple[Ranked, ...]
    others: int
    others_used: Used
    others_percent: int
    total: Used


def rank(sums: Mapping[Any, Used], count: int) -> Ranking:
    """Return the `count` who used most. Ties are sorted by key."""
    return rank_all(sums, count, total=sum(sums.values(), NOTHING), keys=len(sums))


def rank_all(candidates: Mapping[Any, Used], count: int, *, total: Used, keys: int) -> Ranking:
    """Return the `count` who used most of `keys` that used `total` together.

    `candidates` contains at least those `count`.
    """
    order = sorted(candidates.items(), key=lambda item: (-item[1].credits_micro, str(item[0])))
    top = order[:count]
    used = sum((each for _, each in top), NOTHING)
    rest = Used(total.events - used.events, total.credits_micro - used.credits_micro)
    return Ranking(
        top=tuple(Ranked(key, used, _percent(used, total)) for key, used in top),
        others=keys - len(top),
        others_used=rest,
        others_percent=_percent(rest, total),
        total=total,
    )


def _percent(used: Used, total: Used) -> int:
    return used.credits_micro * 100 // total.credits_micro if total.credits_micro else 0
