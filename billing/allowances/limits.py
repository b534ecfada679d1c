"""Set what an organization can use of a bucket per period."""

import zoneinfo
from collections.abc import Sequence
from datetime import datetime, timedelta

from billing.allowances.audited_rows import locked_account, save_with_audit
from billing.credits import MAXIMUM_MICRO
from billing.decisions.enforcement import recut_and_enforce
from billing.decisions.timeline import load_timelines
from billing.models import AuditEntry, Limit
from projects.models import Organization


def set_limit(
    organization: Organization,
    resource: str,
    limit_micro: int | None,
    *,
    mode: str = Limit.Mode.HARD,
    grace_days: int | None = None,
    anchor_day: int | None = None,
    time_zone: str | None = None,
    thresholds: Sequence[int] | None = None,
    actor: str = "",
    reason: str = "",
) -> Limit:
    """Set the limit per period in micro-credits, None for unlimited, and publish the result.

    `thresholds` are the percents of the period's credits at which to warn. `thresholds`,
    `grace_days`, `anchor_day` and `time_zone` stay as they are unless given. Raises `ValueError` if
    a value is invalid.
    """
    _check(limit_micro, mode, grace_days, anchor_day, time_zone, thresholds)
    with locked_account(organization, resource) as (account, now):
        previous = load_timelines([account.pk])[account.pk].current
        base = previous or Limit()
        limit = Limit(
            account=account,
            limit_micro=limit_micro,
            mode=mode,
            grace_days=base.grace_days if grace_days is None else grace_days,
            anchor_day=base.anchor_day if anchor_day is None else anchor_day,
            time_zone=base.time_zone if time_zone is None else time_zone,
            thresholds=base.thresholds if thresholds is None else sorted(set(thresholds)),
            set_at=_instant_after(previous, now),
        )
        before = {"previous_limit_micro": previous.limit_micro if previous else None}
        save_with_audit(AuditEntry.Action.LIMIT_SET, limit, actor=actor, reason=reason, **before)
        recut_and_enforce(account, max(now, limit.set_at))
    return limit


def _instant_after(previous: Limit | None, now: datetime) -> datetime:
    """Return an instant after the previous limit's, even if a clock was set back."""
    return now if previous is None else max(now, previous.set_at + timedelta.resolution)


def _check(
    limit_micro: int | None,
    mode: str,
    grace_days: int | None,
    anchor_day: int | None,
    time_zone: str | None,
    thresholds: Sequence[int] | None,
) -> None:
    if limit_micro is not None and not 0 <= limit_micro <= MAXIMUM_MICRO:
        raise ValueError("a limit is between 0 and 100,000,000,000 credits")
    if mode not in Limit.Mode.values:
        raise ValueError(f"a limit is hard or soft, not {mode!r}")
    if grace_days is not None and not 0 <= grace_days <= 366:
        raise ValueError("a grace lasts between 0 and 366 days")
    if anchor_day is not None and not 1 <= anchor_day <= 31:
        raise ValueError("a period begins on a day between 1 and 31")
    if time_zone is not None and time_zone not in zoneinfo.available_timezones():
        raise ValueError(f"unknown time zone {time_zone!r}")
    if thresholds is not None and not all(1 <= percent <= 100 for percent in thresholds):
        raise ValueError("a threshold is between 1 and 100 percent")
