"""Forecast the day on which the credits run out if usage continues as in the last days.

Each future day is assumed to use the mean of the last seven whole UTC days, or of all whole days
since the first usage if there are fewer. The limit and the top-ups are spent in their usual order,
and unspent top-ups expire. The forecast is the first day on which nothing is left.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from billing.periods import Period
from billing.reports.period_usage import segments_of
from billing.reports.sums import Span, midnight
from billing.reports.walk import Walk

DAYS = 7
PREPAID_HORIZON = timedelta(days=90)
"""How far to look ahead if new periods bring no new credits."""

_DAY = timedelta(days=1)


class Kind(StrEnum):
    """The possible outcomes of a forecast."""

    UNLIMITED = "unlimited"
    USED_UP = "used_up"
    NO_HISTORY = "no_history"
    RUNS_OUT = "runs_out"
    NOT_IN_PERIOD = "not_in_period"
    NOT_SOON = "not_soon"


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast. `day` is when the credits run out. Amounts are in micro-credits."""

    kind: Kind
    daily_mean_micro: int = 0
    days_counted: int = 0
    day: date | None = None
    left_micro: int | None = None


def usage_within(daily_mean_micro: int, time: timedelta) -> int:
    """Return what is used within a time at this daily mean. (A timedelta overflows too soon.)"""
    return daily_mean_micro * (time // timedelta.resolution) // (_DAY // timedelta.resolution)


def trailing_days(now: datetime, first_use: datetime | None) -> Span | None:
    """Return the whole days over which to take the mean, None if there are none yet."""
    today = midnight(now.date())
    if first_use is None:
        return None
    start = max(today - DAYS * _DAY, midnight(first_use.date()))
    return Span(start, today) if start < today else None


def make_forecast(
    walk: Walk, period: Period, now: datetime, trailing: Span | None, trailing_micro: int
) -> Forecast:
    """Return the forecast for the current period. `walk` must have spent all its usage so far.

    `trailing_micro` is what was used within `trailing`.
    """
    balance = walk.balance(now)
    left = balance.headroom
    days = (trailing.end - trailing.start).days if trailing else 0
    mean = max(trailing_micro, 0) // days if days else 0
    if left is None:
        return Forecast(Kind.UNLIMITED, mean, days)
    if left <= 0:
        return Forecast(Kind.USED_UP, mean, days, left_micro=left)
    if mean == 0:
        return Forecast(Kind.NO_HISTORY, mean, days, left_micro=left)
    horizon = period.end if balance.limit else now + PREPAID_HORIZON
    for span in segments_of(walk.timeline, Span(now, horizon)):
        walk.spend(span, usage_within(mean, span.end - span.start))
        headroom = walk.balance(span.end - datetime.resolution).headroom
        if headroom is not None and headroom <= 0:
            return Forecast(Kind.RUNS_OUT, mean, days, span.start.date(), left)
    kind = Kind.NOT_IN_PERIOD if balance.limit else Kind.NOT_SOON
    return Forecast(kind, mean, days, left_micro=left)
