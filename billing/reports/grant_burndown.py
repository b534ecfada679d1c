"""How the top-ups burn down over a period."""

from dataclasses import dataclass
from datetime import date, datetime

from billing.decisions.burndown import Grant
from billing.reports.period_usage import PeriodUsage
from billing.reports.walk import Walk


@dataclass(frozen=True, slots=True)
class BurningGrant:
    """One top-up, in micro-credits, and what was left of it at the end of each day.

    `left` can still be spent at the end of the walk. `lost` can't, because the grant had expired or
    was voided.
    """

    grant: Grant
    at_start: int
    by_day: dict[date, int]
    left: int
    lost: int

    @property
    def burned(self) -> int:
        """What was spent of it in the period."""
        return self.at_start - self.left - self.lost


def burn_down(walk: Walk, usage: PeriodUsage, now: datetime) -> list[BurningGrant]:
    """Return the burn-down, until `now`, of each grant that had something left in the period."""
    period = usage.period
    last = min(now, period.end - datetime.resolution)
    at_start: dict[int, int] = {}
    left: dict[int, int] = {}
    by_day: dict[int, dict[date, int]] = {}
    new = {g.id: g.amount_micro for g in walk.timeline.grants if g.starts_at >= period.start}
    for segment in usage.segments:
        span = segment.span
        if span.start > last:
            break
        for pk, micro in walk.balance(span.start).grants_left.items():
            at_start.setdefault(pk, new.get(pk, micro))
        walk.spend(span, segment.used.credits_micro)
        end = min(last, span.end - datetime.resolution)
        for pk, micro in walk.balance(end).grants_left.items():
            left[pk] = micro
            by_day.setdefault(pk, {})[span.start.date()] = micro
    burning = []
    for grant in sorted(walk.timeline.grants, key=lambda grant: (grant.starts_at, grant.id)):
        if at_start.get(grant.id):
            rest, live = left[grant.id], grant.is_live(last)
            burning.append(
                BurningGrant(
                    grant=grant,
                    at_start=at_start[grant.id],
                    by_day=by_day[grant.id],
                    left=rest if live else 0,
                    lost=0 if live else rest,
                )
            )
    return burning
