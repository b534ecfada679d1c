"""Preview the decision about an account if a limit were set or top-ups were voided."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from billing.decisions.assessment import assess
from billing.decisions.decision import Decision
from billing.decisions.decision_inputs import load_inputs
from billing.decisions.timeline import Timeline
from billing.models import Account, Limit


def with_limit(account: Account, limit: Limit, now: datetime) -> Decision:
    """Return the decision if this limit were set now."""
    timeline = _timeline(account)
    current = timeline.current
    limit.set_at = max(now, current.set_at + timedelta.resolution) if current else now
    return _decide(account, Timeline([*timeline.limits, limit], timeline.grants), now)


def without_grants(account: Account, grants: Collection[int], now: datetime) -> Decision:
    """Return the decision if these top-ups were voided now."""
    timeline = _timeline(account)
    left = [
        replace(grant, ends_at=min(now, grant.ends_at or now)) if grant.id in grants else grant
        for grant in timeline.grants
    ]
    return _decide(account, Timeline(timeline.limits, left), now)


def _timeline(account: Account) -> Timeline:
    return load_inputs([account.pk])[account.pk].timeline


def _decide(account: Account, timeline: Timeline, now: datetime) -> Decision:
    inputs = replace(load_inputs([account.pk])[account.pk], timeline=timeline)
    [assessed] = assess([account], {account.pk: inputs}, now)
    return assessed.decision
