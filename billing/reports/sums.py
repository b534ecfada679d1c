"""Exact sums of an account's usage, in a time that doesn't grow with the number of events.

Whole UTC days are read from the daily usage report if it is complete. The ledger itself is read for
days with events that were booked since the report was made, and for parts of days. So the sums
equal those of the ledger, to the micro-credit.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Case, Count, F, IntegerField, QuerySet, Sum, When
from django.db.models.expressions import Combinable

from billing.models import Account, DailyUsage, UsageEvent
from billing.reports.daily_usage import reported_days

_DAY = timedelta(days=1)


class Span(NamedTuple):
    """A stretch of time, from `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Used:
    """A number of events and their credits. Refunds and corrections count as events."""

    events: int = 0
    credits_micro: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(self.events + other.events, self.credits_micro + other.credits_micro)


NOTHING = Used()


def midnight(day: date) -> datetime:
    """Return the instant at which a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def cut(span: Span, cuts: Sequence[datetime] = ()) -> list[Span]:
    """Return the span, cut at every UTC midnight and at `cuts`."""
    days = (span.end - span.start).days + 1
    midnights = [midnight(span.start.date()) + _DAY * number for number in range(1, days + 2)]
    edges = sorted({edge for edge in (*midnights, *cuts) if span.start < edge < span.end})
    return [Span(*pair) for pair in zip([span.start, *edges], [*edges, span.end], strict=True)]


class Sums:
    """The sums of one account."""

    def __init__(self, account: Account, over: Span) -> None:
        """Find out which days have a complete report. All later queries must lie within `over`."""
        self._account = account
        self._reported = reported_days(piece.start.date() for piece in cut(over))

    def by(self, spans: Sequence[Span], *keys: str | Combinable) -> dict[tuple[Any, ...], Used]:
        """Return what was used within the spans, grouped by keys.

        A key is a column that the ledger and the daily report share, or an expression of such
        columns.
        """
        days, pieces = self._divided(spans)
        sums: dict[tuple[Any, ...], Used] = defaultdict(Used)
        if days:
            for key, used in _grouped(self._reports().filter(day__in=days), Sum("events"), keys):
                sums[key] += used
        for piece in joined(pieces):
            for key, used in _grouped(self._events(piece), Count("uuid"), keys):
                sums[key] += used
        return dict(sums)

    def each_by(self, spans: Sequence[Span], key: str) -> list[dict[Any, Used]]:
        """Return what was used within each span, grouped by a column.

        The spans must be pieces made by `cut`, in order.
        """
        days, pieces = self._divided(spans)
        by_day: dict[date, dict[Any, Used]] = defaultdict(dict)
        if days:
            reports = self._reports().filter(day__in=days)
            for (day, found), used in _grouped(reports, Sum("events"), ("day", key)):
                by_day[day][found] = used
        by_piece: dict[Span, dict[Any, Used]] = {piece: {} for piece in pieces}
        for longer in joined(pieces):
            within = [piece for piece in pieces if longer.start <= piece.start < longer.end]
            events = self._events(longer)
            for (number, found), used in _grouped(events, Count("uuid"), (_number(within), key)):
                by_piece[within[number]][found] = used
        return [by_piece[span] if span in by_piece else by_day[span.start.date()] for span in spans]

    def _divided(self, spans: Sequence[Span]) -> tuple[list[date], list[Span]]:
        days, pieces = [], []
        for span in spans:
            for piece in cut(span):
                if piece.end - piece.start == _DAY and piece.start.date() in self._reported:
                    days.append(piece.start.date())
                else:
                    pieces.append(piece)
        return days, pieces

    def _reports(self) -> QuerySet[DailyUsage]:
        return DailyUsage.objects.filter(
            organization=self._account.organization_id, resource=self._account.resource
        )

    def _events(self, span: Span) -> QuerySet[UsageEvent]:
        return UsageEvent.objects.filter(
            account=self._account,
            project__isnull=False,
            occurred_at__gte=span.start,
            occurred_at__lt=span.end,
        )


def _number(pieces: Sequence[Span]) -> Case:
    """Return an expression for the number of an event's piece. The pieces must be adjacent."""
    cases = [When(occurred_at__lt=piece.end, then=at) for at, piece in enumerate(pieces)]
    return Case(*cases, output_field=IntegerField())


def joined(pieces: Sequence[Span]) -> list[Span]:
    """Return the spans sorted, with adjacent spans merged."""
    longer: list[Span] = []
    for piece in sorted(pieces):
        if longer and longer[-1].end == piece.start:
            longer[-1] = Span(longer[-1].start, piece.end)
        else:
            longer.append(piece)
    return longer


def _grouped(
    rows: QuerySet[Any], events: Sum | Count, keys: Sequence[str | Combinable]
) -> Iterator[tuple[tuple[Any, ...], Used]]:
    names = {
        f"key_{number}": F(key) if isinstance(key, str) else key for number, key in enumerate(keys)
    }
    sums = {"used_events": events, "used_micro": Sum("credits_micro")}
    if not names:
        total = rows.order_by().aggregate(**sums)
        if total["used_events"]:
            yield (), Used(total["used_events"], total["used_micro"])
        return
    found = rows.order_by().annotate(**names).values(*names).annotate(**sums)
    for row in found.values_list(*names, *sums):
        yield row[:-2], Used(row[-2], row[-1])
