"""How usage eats the periodic limit and then the grants. Pure, and independent of arrival order.

Time is cut into *stretches*: wherever a period begins and wherever a grant starts, expires or is
voided. Within a stretch nothing changes about what may cover usage, so its total is all that
matters, never the order of its events. Walking the stretches in order:

1. Usage of a period is covered by the period's limit first.
2. What exceeds it is covered by the grants live in that stretch: lower priority first, then the
   earlier expiry (never expiring last), then the order of creation.
3. What nothing covers is carried to the next stretch of the same period, where a grant that starts
   then covers it first. At the end of the period the rest is overage and is forgotten: the new
   period starts from its own usage.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from billing.periods import Calendar, Period, period_at

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """A credit grant as the walk needs it; `ends_at` is when it expires or was voided before."""

    id: int
    amount_micro: int
    starts_at: datetime
    ends_at: datetime | None = None
    expires_at: datetime | None = None
    priority: int = 0

    def is_live(self, instant: datetime) -> bool:
        """Return whether usage at the instant may be covered by it."""
        return self.starts_at <= instant and (self.ends_at is None or instant < self.ends_at)

    @property
    def cuts(self) -> tuple[datetime, ...]:
        """Where it divides time."""
        return (self.starts_at,) if self.ends_at is None else (self.starts_at, self.ends_at)


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """A limit as set at an instant; `limit_micro` None is unlimited."""

    set_at: datetime
    limit_micro: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What is used and left at one instant, in micro-credits.

    `allowance_left` is None where the period is unlimited. `overdrawn` is what nothing covered so
    far in this period; while it is above zero nothing is left.
    """

    period: Period
    usage: int
    limit: int | None
    allowance_left: int | None
    grants_left: Mapping[int, int]
    overdrawn: int

    @property
    def headroom(self) -> int | None:
        """What may still be spent, negative when more was; None for unlimited."""
        if self.allowance_left is None:
            return None
        return self.allowance_left + sum(self.grants_left.values()) - self.overdrawn


def stretch_at(
    instant: datetime, calendars: Sequence[Calendar], cuts: Sequence[datetime]
) -> tuple[datetime, datetime]:
    """Return start (inclusive) and end (exclusive) of the stretch that contains the instant.

    `cuts` are in order: an account may have thousands of top-ups, and each stretch is asked for.
    """
    period = period_at(instant, calendars)
    at = bisect_right(cuts, instant)
    start = period.start if at == 0 else max(period.start, cuts[at - 1])
    end = period.end if at == len(cuts) else min(period.end, cuts[at])
    return start, end


def balance_at(
    now: datetime,
    *,
    calendars: Sequence[Calendar],
    terms: Sequence[LimitTerms],
    grants: Sequence[Grant],
    usage: Mapping[datetime, int],
) -> Balance:
    """Return the balance at `now`.

    `terms` are in the order of `set_at`. `usage` maps the start of each stretch that has any to its
    total; stretches that begin after `now` do not count yet.
    """
    current = period_at(now, calendars)
    order = sorted(grants, key=_burning_order)
    left = {grant.id: grant.amount_micro for grant in order}
    overdrawn = 0
    # Without grants no earlier period matters: what it left uncovered is forgotten.
    first = min((grant.starts_at for grant in order), default=now)
    since = period_at(min(first, now), calendars).start
    points = {start for start in usage if start >= since}
    points.update(grant.starts_at for grant in order)
    waiting = sorted(order, key=lambda grant: grant.starts_at, reverse=True)
    burning: list[Grant] = []
    period: Period | None = None
    used = beyond_limit = 0
    limit: int | None = None
    for start in sorted(point for point in points if point <= now):
        if period is None or start >= period.end:
            period = period_at(start, calendars)
            limit = limit_of(period, terms)
            used = beyond_limit = overdrawn = 0
        while waiting and waiting[-1].starts_at <= start:
            insort(burning, waiting.pop(), key=_burning_order)
        used += usage.get(start, 0)
        if limit is None:
            continue
        beyond = max(used - limit, 0)
        overdrawn += beyond - beyond_limit
        beyond_limit = beyond
        while overdrawn > 0 and burning:
            grant = burning[0]
            if grant.is_live(start):
                covered = min(left[grant.id], overdrawn)
                left[grant.id] -= covered
                overdrawn -= covered
            if overdrawn > 0:
                burning.pop(0)  # over or used up: it covers nothing at any later point either
    if period != current:
        used = overdrawn = 0
        limit = limit_of(current, terms)
    return Balance(
        period=current,
        usage=used,
        limit=limit,
        allowance_left=None if limit is None else max(limit - used, 0),
        grants_left={grant.id: left[grant.id] for grant in order if grant.is_live(now)},
        overdrawn=overdrawn,
    )


def limit_of(period: Period, terms: Sequence[LimitTerms]) -> int | None:
    """Return the period's limit: the one in force at its end; None (unlimited) before the first."""
    in_force = [term for term in terms if term.set_at < period.end]
    return in_force[-1].limit_micro if in_force else None


def _burning_order(grant: Grant) -> tuple[int, datetime, int]:
    return (grant.priority, grant.expires_at or _NEVER, grant.id)
