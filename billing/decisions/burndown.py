"""How usage burns down the periodic limit and then the grants.

These functions are pure, and the order in which events arrive makes no difference.

Time is cut into *stretches*. A new stretch begins wherever a period begins, and wherever a grant
starts, expires or is voided. Within a stretch the same limit and grants cover all usage, so only
its total matters, not the order of its events. The stretches are walked in order:

1. The period's limit covers usage first.
2. The grants that are live in the stretch cover what exceeds the limit: lower priority first, then
   earlier expiry (grants that never expire come last), then order of creation.
3. Usage that nothing covers is carried to the next stretch of the same period. A grant that starts
   there covers it first. At the end of the period the rest is overage and is dropped: the new
   period starts with its own usage only.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from billing.periods import Calendar, Period, period_at

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """A credit grant, reduced to what the walk needs.

    `ends_at` is when it stops covering usage: its expiry, or earlier if it was voided.
    """

    id: int
    amount_micro: int
    starts_at: datetime
    ends_at: datetime | None = None
    expires_at: datetime | None = None
    priority: int = 0

    def is_live(self, instant: datetime) -> bool:
        """Return whether the grant can cover usage at the instant."""
        return self.starts_at <= instant and (self.ends_at is None or instant < self.ends_at)

    @property
    def cuts(self) -> tuple[datetime, ...]:
        """The instants at which this grant begins a new stretch."""
        return (self.starts_at,) if self.ends_at is None else (self.starts_at, self.ends_at)


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """A limit and when it was set. `limit_micro` is None for unlimited."""

    set_at: datetime
    limit_micro: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What is used and left at one instant, in micro-credits.

    `allowance_left` is None if the period is unlimited. `overdrawn` is usage in this period that
    nothing has covered so far. While it is above zero, nothing is left.
    """

    period: Period
    usage: int
    limit: int | None
    allowance_left: int | None
    grants_left: Mapping[int, int]
    overdrawn: int

    @property
    def headroom(self) -> int | None:
        """What can still be spent. Negative if too much was spent, None if unlimited."""
        if self.allowance_left is None:
            return None
        return self.allowance_left + sum(self.grants_left.values()) - self.overdrawn


def stretch_at(
    instant: datetime, calendars: Sequence[Calendar], cuts: Sequence[datetime]
) -> tuple[datetime, datetime]:
    """Return start (inclusive) and end (exclusive) of the stretch that contains the instant.

    `cuts` must be sorted: an account can have thousands of top-ups, so this uses binary search.
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

    `terms` are sorted by `set_at`. `usage` maps the start of each stretch with usage to its total.
    Stretches that begin after `now` don't count yet.
    """
    current = period_at(now, calendars)
    order = sorted(grants, key=_burning_order)
    left = {grant.id: grant.amount_micro for grant in order}
    # Earlier periods matter only for grants: uncovered usage is dropped when a period ends.
    first = min((grant.starts_at for grant in order), default=now)
    since = period_at(min(first, now), calendars).start
    points = {start for start in usage if start >= since}
    points.update(grant.starts_at for grant in order)
    waiting = sorted(order, key=lambda grant: grant.starts_at, reverse=True)
    burning: list[Grant] = []
    period: Period | None = None  # so the first stretch begins one
    limit: int | None
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
                burning.pop(0)  # ended or used up, so it covers nothing later either
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
    """Return the limit in force at the end of the period, None if unlimited or never set."""
    in_force = [term for term in terms if term.set_at < period.end]
    return in_force[-1].limit_micro if in_force else None


def _burning_order(grant: Grant) -> tuple[int, datetime, int]:
    return (grant.priority, grant.expires_at or _NEVER, grant.id)
