"""Billing periods: months that begin on any day, at midnight in any time zone. Pure functions.

If a month doesn't have the anchor day, its period begins on its last day (31 → 30 April, 28 or 29
February). The next month uses the anchor day again. If a clock change skips midnight, the period
begins at the change. If midnight happens twice, it begins at the first one.
"""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (inclusive) to `end` (exclusive), both in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Calendar:
    """The day and time zone in which months begin. In force after `since`."""

    since: datetime
    anchor_day: int = 1
    time_zone: str = "UTC"

    def period_at(self, instant: datetime) -> Period:
        """Return the month that contains the instant. Ignores `since`."""
        local = instant.astimezone(ZoneInfo(self.time_zone))
        start = self._boundary(local.year, local.month)
        if instant >= start:
            return Period(start, self._boundary(*_month(local.year, local.month, +1)))
        return Period(self._boundary(*_month(local.year, local.month, -1)), start)

    def _boundary(self, year: int, month: int) -> datetime:
        day = min(self.anchor_day, monthrange(year, month)[1])
        midnight = datetime(year, month, day, tzinfo=ZoneInfo(self.time_zone))
        return midnight.astimezone(UTC)

    def cuts_like(self, other: "Calendar") -> bool:
        """Return whether both calendars cut time in the same way, regardless of `since`."""
        return (self.anchor_day, self.time_zone) == (other.anchor_day, other.time_zone)


def _month(year: int, month: int, step: int) -> tuple[int, int]:
    years, month_index = divmod(year * 12 + month - 1 + step, 12)
    return years, month_index + 1


def period_at(instant: datetime, calendars: Sequence[Calendar]) -> Period:
    """Return the period that contains the instant, with calendars that change over time.

    `calendars` are sorted by `since`. The first one also applies before its `since`. A calendar
    ends periods at its own boundaries after its `since`, up to and including the next calendar's
    `since`. So the period in which the calendar changes runs until the first boundary of the new
    calendar, and periods before the change never move.
    """
    if not calendars:
        raise ValueError("a period needs at least one calendar")
    index = max((i for i, c in enumerate(calendars) if c.since < instant), default=0)
    return Period(_start(instant, index, calendars), _end(instant, index, calendars))


def _start(instant: datetime, index: int, calendars: Sequence[Calendar]) -> datetime:
    """Return the latest boundary at or before the instant, which calendar `index` governs."""
    start = calendars[index].period_at(instant).start
    while index > 0 and start <= calendars[index].since:
        instant = calendars[index].since
        index -= 1
        start = calendars[index].period_at(instant).start
    return start


def _end(instant: datetime, index: int, calendars: Sequence[Calendar]) -> datetime:
    """Return the earliest boundary after the instant, which calendar `index` governs."""
    end = calendars[index].period_at(instant).end
    while index + 1 < len(calendars) and end > calendars[index + 1].since:
        index += 1
        end = calendars[index].period_at(calendars[index].since).end
    return end
