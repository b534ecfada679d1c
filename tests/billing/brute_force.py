"""A simple model of billing that replays every event in time order.

It has no stretches and no running totals. `billing` must agree with it, in whatever order events,
grants and limits arrived.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from billing.decisions.burndown import Grant, LimitTerms
from billing.periods import Calendar, period_at


@dataclass
class Outcome:
    """What is used and left."""

    usage: int = 0
    limit: int | None = None
    allowance_left: int | None = None
    uncovered: int = 0
    grants_left: dict[int, int] = field(default_factory=dict)

    @property
    def headroom(self) -> int | None:
        if self.allowance_left is None:
            return None
        return self.allowance_left + sum(self.grants_left.values()) - self.uncovered


def simulate(
    now: datetime,
    calendars: Sequence[Calendar],
    terms: Sequence[LimitTerms],
    grants: Sequence[Grant],
    events: Iterable[tuple[datetime, int]],
) -> Outcome:
    """Replay everything until `now` and return what is left then."""

    def live(instant: datetime) -> list[Grant]:
        eligible = [
            grant
            for grant in grants
            if grant.starts_at <= instant and (grant.ends_at is None or instant < grant.ends_at)
        ]
        return sorted(
            eligible,
            key=lambda grant: (
                grant.priority,
                (0, grant.expires_at) if grant.expires_at else (1,),
                grant.id,
            ),
        )

    left = {grant.id: grant.amount_micro for grant in grants}
    moments: list[tuple[datetime, int]] = [(at, micro) for at, micro in events if at <= now]
    # Add an event without usage where a grant starts, because the grant can cover earlier usage.
    moments += [(grant.starts_at, 0) for grant in grants if grant.starts_at <= now]
    moments.append((now, 0))

    period = None
    outcome = Outcome()
    for at, micro in sorted(moments):
        if period is None or at >= period.end:
            period = period_at(at, calendars)
            in_force = [term.limit_micro for term in terms if term.set_at < period.end]
            limit = in_force[-1] if in_force else None
            outcome = Outcome(0, limit, limit)
        outcome.usage += micro
        if outcome.allowance_left is None:
            continue
        from_allowance = min(micro, outcome.allowance_left)
        outcome.allowance_left -= from_allowance
        outcome.uncovered += micro - from_allowance
        for grant in live(at):
            covered = min(left[grant.id], outcome.uncovered)
            left[grant.id] -= covered
            outcome.uncovered -= covered
    outcome.grants_left = {grant.id: left[grant.id] for grant in live(now)}
    return outcome
