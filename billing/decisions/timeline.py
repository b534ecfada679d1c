"""Limits and grants of accounts, and the periods and stretches of time that follow from them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from billing.decisions.burndown import Grant, LimitTerms, stretch_at
from billing.models import CreditGrant, Limit
from billing.periods import Calendar, Period, period_at

_DEFAULT_CALENDAR = Calendar(since=datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Timeline:
    """An account's limits and grants. Without a limit, usage is unlimited, in UTC months.

    Calendars, terms and cuts are cached, because they are needed for every stretch.
    """

    limits: list[Limit] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)

    @property
    def current(self) -> Limit | None:
        """The newest limit."""
        return self.limits[-1] if self.limits else None

    @cached_property
    def calendars(self) -> list[Calendar]:
        """The calendars, in the order in which they took effect."""
        calendars = [_DEFAULT_CALENDAR]
        for limit in self.limits:
            calendar = Calendar(limit.set_at, limit.anchor_day, limit.time_zone)
            if not calendar.cuts_like(calendars[-1]):
                calendars.append(calendar)
        return calendars

    @cached_property
    def terms(self) -> list[LimitTerms]:
        """The limits, in the order in which they were set."""
        return [LimitTerms(limit.set_at, limit.limit_micro) for limit in self.limits]

    @cached_property
    def cuts(self) -> list[datetime]:
        """The instants at which grants start and end, in order."""
        return sorted(cut for grant in self.grants for cut in grant.cuts)

    def stretch_at(self, instant: datetime) -> tuple[datetime, datetime]:
        """Return start and end of the stretch of time that contains the instant."""
        return stretch_at(instant, self.calendars, self.cuts)

    def period_at(self, instant: datetime) -> Period:
        """Return the billing period that contains the instant."""
        return period_at(instant, self.calendars)


def load_timelines(account_ids: Iterable[int]) -> dict[int, Timeline]:
    """Return the timeline of each account. Takes two queries in all."""
    ids = list(account_ids)
    limits: dict[int, list[Limit]] = defaultdict(list)
    for limit in Limit.objects.filter(account__in=ids).order_by("account", "set_at"):
        limits[limit.account_id].append(limit)
    grants: dict[int, list[Grant]] = defaultdict(list)
    for grant in CreditGrant.objects.filter(account__in=ids).order_by("account", "pk"):
        grants[grant.account_id].append(to_burndown_grant(grant))
    return {pk: Timeline(limits[pk], grants[pk]) for pk in ids}


def to_burndown_grant(grant: CreditGrant) -> Grant:
    """Return the grant in the form that the burn-down uses."""
    ends = [instant for instant in (grant.expires_at, grant.voided_at) if instant is not None]
    return Grant(
        id=grant.pk,
        amount_micro=grant.amount_micro,
        starts_at=grant.starts_at,
        ends_at=min(ends, default=None),
        expires_at=grant.expires_at,
        priority=grant.priority,
    )
