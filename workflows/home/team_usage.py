"""What a team used in this period: by day and by person."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from billing.decisions.timeline import load_timelines
from billing.models import Account
from billing.reports.period_usage import usage_of_period
from billing.reports.sums import NOTHING, Span, Sums, Used
from projects.models import SlackWorkspace
from quota.resources import AI_CREDITS

REMEMBERED_SECONDS = 15.0
"""How long a process shows the same sums to all readers. The credits left are always read anew."""
_MOST_REMEMBERED = 200


@dataclass(frozen=True, slots=True)
class TeamUsage:
    """What an account's users have used since its period began. Empty for a new account."""

    since: datetime
    """When the period began, in the time zone of the limit."""
    by_user: Mapping[str, Used]
    days: Mapping[date, Used]
    """Every UTC day of the period until now, in order."""

    @property
    def total(self) -> Used:
        """What all of them used."""
        return sum(self.by_user.values(), NOTHING)

    def of(self, distinct_id: str) -> Used:
        """Return what one user used."""
        return self.by_user.get(distinct_id, NOTHING)


def team_usage(workspace: SlackWorkspace, now: datetime) -> TeamUsage:
    """Return what the team of a workspace used in the period."""
    account = _account(workspace)
    return TeamUsage(now, {}, {}) if account is None else _read(account, now)


def remembered_team_usage(workspace: SlackWorkspace, now: datetime) -> TeamUsage:
    """Return the same as `team_usage`, but read it at most once in a few seconds."""
    account = _account(workspace)
    if account is None:
        return TeamUsage(now, {}, {})
    with _lock_of(account.ledger_epoch):  # many readers at once cause one read
        known = _remembered.get(account.ledger_epoch)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        usage = _read(account, now)
        _remembered[account.ledger_epoch] = (time.monotonic() + REMEMBERED_SECONDS, usage)
        return usage


def _account(workspace: SlackWorkspace) -> Account | None:
    organization = workspace.project.organization_id
    return Account.objects.filter(organization=organization, resource=AI_CREDITS).first()


def _read(account: Account, now: datetime) -> TeamUsage:
    timeline = load_timelines([account.pk])[account.pk]
    period = timeline.period_at(now)
    whole = Span(period.start, period.end)
    sums = Sums(account, whole)
    by_user = {key: used for (key,), used in sums.by([whole], "distinct_id").items()}
    days = usage_of_period(sums, timeline, period).days
    until_now = {each.day: each.used for each in days if each.day <= now.date()}
    zone = ZoneInfo(timeline.calendars[-1].time_zone)
    return TeamUsage(period.start.astimezone(zone), by_user, until_now)


_remembered: OrderedDict[UUID, tuple[float, TeamUsage]] = OrderedDict()
_locks: OrderedDict[UUID, threading.Lock] = OrderedDict()
_guard = threading.Lock()


def _lock_of(key: UUID) -> threading.Lock:
    with _guard:
        if len(_locks) >= _MOST_REMEMBERED:
            old, _ = _locks.popitem(last=False)
            _remembered.pop(old, None)
        return _locks.setdefault(key, threading.Lock())
