"""What an account used in one period, day by day and product by product."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from billing.decisions.burndown import limit_of
from billing.decisions.timeline import Timeline
from billing.periods import Period
from billing.reports.sums import NOTHING, Span, Sums, Used, cut


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of one day within which the same grants are live."""

    span: Span
    products: Mapping[str, Used]

    @property
    def used(self) -> Used:
        """What was used of all products."""
        return sum(self.products.values(), NOTHING)


@dataclass(frozen=True, slots=True)
class DayUsage:
    """What was used on one UTC day, within the period."""

    day: date
    products: Mapping[str, Used]

    @property
    def used(self) -> Used:
        """What was used of all products."""
        return sum(self.products.values(), NOTHING)


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """A period's usage. `limit_micro` is None for unlimited."""

    period: Period
    limit_micro: int | None
    segments: tuple[Segment, ...]

    @property
    def used(self) -> Used:
        """What was used in the whole period."""
        return sum((segment.used for segment in self.segments), NOTHING)

    @property
    def products(self) -> list[str]:
        """The products that were used, sorted by name."""
        return sorted({product for segment in self.segments for product in segment.products})

    @property
    def days(self) -> list[DayUsage]:
        """Every day of the period, in order."""
        days: dict[date, dict[str, Used]] = {}
        for segment in self.segments:
            products = days.setdefault(segment.span.start.date(), {})
            for product, used in segment.products.items():
                products[product] = products.get(product, NOTHING) + used
        return [DayUsage(day, products) for day, products in days.items()]


def usage_of_period(sums: Sums, timeline: Timeline, period: Period) -> PeriodUsage:
    """Return what was used in a period."""
    spans = segments_of(timeline, Span(period.start, period.end))
    return PeriodUsage(
        period=period,
        limit_micro=limit_of(period, timeline.terms),
        segments=tuple(
            Segment(span, products)
            for span, products in zip(spans, sums.each_by(spans, "product"), strict=True)
        ),
    )


def segments_of(timeline: Timeline, span: Span) -> list[Span]:
    """Return a span, cut at midnights and wherever grants start or end."""
    return cut(span, [instant for grant in timeline.grants for instant in grant.cuts])


def periods_back_to(
    timeline: Timeline, now: datetime, since: datetime, *, at_most: int
) -> Iterator[Period]:
    """Yield the current period and those before it, back to the one that contains `since`."""
    period = timeline.period_at(now)
    for _ in range(at_most):
        yield period
        if period.start <= since:
            return
        period = timeline.period_at(period.start - datetime.resolution)
