"""Which stretch of time a page shows: this period, the last one, an earlier one, or two dates."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.utils.http import urlencode

from billing.decisions.timeline import Timeline
from billing.reports.sums import Span

LONGEST = timedelta(days=366)
_FIRST_YEAR, _LAST_YEAR = 2000, 2999


@dataclass(frozen=True, slots=True)
class SpanChoice:
    """A stretch of time. `first` and `last` are its days in `zone`, if two dates were chosen.

    If the dates were not used, `problem` says why.
    """

    span: Span
    zone: str
    first: date | None = None
    last: date | None = None
    problem: str = ""

    @property
    def query(self) -> str:
        """The query of a link that shows the same stretch of time for ever."""
        if self.first and self.last:
            return urlencode({"since": self.first.isoformat(), "until": self.last.isoformat()})
        return urlencode({"period": self.span.start.isoformat()})


def requested_time(given: Mapping[str, str], timeline: Timeline, now: datetime) -> datetime | None:
    """Return a time in the requested period: `this`, `last` or a time. None if it is neither."""
    text = given.get("period", "")
    if text == "this":
        return now
    if text == "last":
        return timeline.period_at(now).start - datetime.resolution
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not _FIRST_YEAR <= instant.year <= _LAST_YEAR:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)


def chosen_span(given: Mapping[str, str], timeline: Timeline, now: datetime) -> SpanChoice:
    """Return the stretch of time that a query asks for, by default this period.

    Two dates, `since` and `until`, override `period`. Both days are included.
    """
    zone = timeline.current.time_zone if timeline.current else "UTC"
    problem = ""
    if given.get("since") or given.get("until"):
        first, last = _day(given.get("since")), _day(given.get("until"))
        if first is None or last is None:
            problem = "Enter two dates, such as 2026-11-01 and 2026-11-15."
        elif last < first:
            problem = "The last day is before the first."
        elif last - first >= LONGEST:
            problem = f"Choose at most {LONGEST.days} days."
        else:
            span = Span(_midnight(first, zone), _midnight(last + timedelta(days=1), zone))
            return SpanChoice(span, zone, first, last)
    period = timeline.period_at(requested_time(given, timeline, now) or now)
    return SpanChoice(Span(period.start, period.end), zone, problem=problem)


def _day(text: str | None) -> date | None:
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return None
    return day if _FIRST_YEAR <= day.year <= _LAST_YEAR - 1 else None


def _midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)
