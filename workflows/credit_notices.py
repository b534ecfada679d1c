"""Tell a team that its credits run low, or that it has some again, once for each threshold.

Billing writes a row when a threshold is crossed. Each workspace of the organization that named a
channel or a person gets a notice about the account's newest row, if it is still true by then. The
notice's key makes it unique, however often this runs.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings

from billing.models import ThresholdNotice
from projects.models import SlackWorkspace
from quota.account_state import AccountState
from quota.models import QuotaState
from workflows import denials, wording
from workflows.models import Notice

LOOKS_BACK = timedelta(hours=6)
"""The greatest age of news. Older news, from before an outage of ours, isn't sent."""


def claim_new(now: datetime) -> list[Notice]:
    """Create and return the missing notices: one for each workspace and each account's news."""
    news = {
        _key(crossed, workspace): (crossed, workspace, state)
        for crossed, state in _news(now)
        for workspace in _listeners(crossed)
    }
    known = set(Notice.objects.filter(key__in=news).values_list("key", flat=True))
    return [
        _claim(key, *about)
        for key, about in news.items()
        if key not in known and _makes_sense(*about[:2])
    ]


def _news(now: datetime) -> Iterator[tuple[ThresholdNotice, AccountState]]:
    """Yield the newest row of each account, if it is still true."""
    recent = ThresholdNotice.objects.filter(noticed_at__gt=now - LOOKS_BACK).order_by("pk")
    newest = {crossed.account_id: crossed for crossed in recent.select_related("account")}
    for crossed in newest.values():
        state = QuotaState.objects.filter(
            organization=crossed.account.organization_id, resource=crossed.account.resource
        ).first()
        if state is not None and _is_still_true(crossed, state.published):
            yield crossed, state.published


def _is_still_true(crossed: ThresholdNotice, state: AccountState) -> bool:
    if crossed.percent == ThresholdNotice.RESOLVED:
        return not state.limited
    if state.remaining_micro is None:  # there is no limit any more
        return False
    used = state.usage_micro or 0
    return used * 100 >= crossed.percent * (used + state.remaining_micro)


def _makes_sense(crossed: ThresholdNotice, workspace: SlackWorkspace) -> bool:
    """Return whether the news makes sense to the workspace: "again" needs an earlier warning."""
    if crossed.percent != ThresholdNotice.RESOLVED:
        return True
    warnings = ThresholdNotice.objects.filter(
        account=crossed.account, period_start=crossed.period_start, pk__lt=crossed.pk
    )
    keys = [_key(warning, workspace) for warning in warnings]
    return Notice.objects.filter(key__in=keys).exists()


def _key(crossed: ThresholdNotice, workspace: SlackWorkspace) -> str:
    return f"credits:{crossed.pk}:{workspace.pk}"


def _listeners(crossed: ThresholdNotice) -> list[SlackWorkspace]:
    workspaces = SlackWorkspace.objects.filter(
        project__organization=crossed.account.organization_id, is_active=True
    )
    return list(workspaces.exclude(credits_channel_id="").defer("bot_token"))


def _claim(
    key: str, crossed: ThresholdNotice, workspace: SlackWorkspace, state: AccountState
) -> Notice:
    notice, _ = Notice.objects.get_or_create(
        key=key,
        defaults={
            "kind": Notice.Kind.CREDITS,
            "workspace": workspace,
            "channel_id": workspace.credits_channel_id,
            "text": _text(crossed, state),
        },
    )
    return notice


def _text(crossed: ThresholdNotice, state: AccountState) -> str:
    name = denials.credits_name(crossed.account.resource)
    if crossed.percent == ThresholdNotice.RESOLVED:
        return wording.credits_are_back(credits_name=name)
    return wording.credits_running_low(
        crossed.percent,
        state.resets_at,
        credits_name=name,
        billing_url=settings.BILLING_URL,
        time_zone=state.time_zone,
    )
