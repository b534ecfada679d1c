"""Rank those who used most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.reports.apportionment import displayed, displayed_dollars, percents
from billing.reports.sums import NOTHING, Used


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of those who used most.

    `percent` is the share of the total. `shown` are the credits and `dollars` their worth, as text.
    All are rounded so that the rows of the table add up.
    """

    key: Any
    used: Used
    percent: int
    shown: str
    dollars: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Those who used most, and all others together. Both add up to `total`."""

    top: tuple[Ranked, ...]
    others: int
    others_used: Used
    others_percent: int
    others_shown: str
    others_dollars: str
    total: Used


def rank(sums: Mapping[Any, Used], count: int) -> Ranking:
    """Return the `count` who used most. Ties are sorted by key."""
    return rank_all(sums, count, total=sum(sums.values(), NOTHING), keys=len(sums))


def rank_all(candidates: Mapping[Any, Used], count: int, *, total: Used, keys: int) -> Ranking:
    """Return the `count` who used most, out of `keys` who used `total` together.

    `candidates` contains at least those `count`.
    """
    order = sorted(candidates.items(), key=lambda item: (-item[1].credits_micro, str(item[0])))
    top = order[:count]
    used = sum((each for _, each in top), NOTHING)
    rest = Used(total.events - used.events, total.credits_micro - used.credits_micro)
    amounts = [*(each.credits_micro for _, each in top), rest.credits_micro]
    [*shares, rest_share] = percents(amounts)
    [*texts, rest_text] = displayed(amounts)
    [*worth, rest_worth] = displayed_dollars(amounts)
    return Ranking(
        top=tuple(
            Ranked(key, each, share, text, value)
            for (key, each), share, text, value in zip(top, shares, texts, worth, strict=True)
        ),
        others=keys - len(top),
        others_used=rest,
        others_percent=rest_share,
        others_shown=rest_text,
        others_dollars=rest_worth,
        total=total,
    )
