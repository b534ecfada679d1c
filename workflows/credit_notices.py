"""Telling a team that its credits run low, or that there are some again: once for each threshold.

Billing writes a row when a threshold is crossed. Every workspace of the organization that named a
channel or a person gets one notice for it; the notice's key makes it one however often this runs.
"""

from datetime import datetime, timedelta

from django.conf import settings

from billing.models import ThresholdNotice
from projects.models import SlackWorkspace
from quota.models import QuotaState
from quota.resources import AI_CREDITS, RESOURCES
from workflows import wording
from workflows.models import Notice

LOOKS_BACK = timedelta(hours=6)
"""What could not be told for so long, because nothing ran, is no news any more."""


def claim_new(now: datetime) -> list[Notice]:
    """Return a notice, written now, for each threshold and workspace that has none yet."""
    crossed = ThresholdNotice.objects.filter(noticed_at__gt=now - LOOKS_BACK).select_related(
        "account"
    )
    news = {
        f"credits:{notice.pk}:{workspace.pk}": (notice, workspace)
        for notice in crossed.order_by("pk")
        for workspace in _listeners(notice)
    }
    known = set(Notice.objects.filter(key__in=news).values_list("key", flat=True))
    return [_claim(key, *about) for key, about in news.items() if key not in known]


def _listeners(notice: ThresholdNotice) -> list[SlackWorkspace]:
    workspaces = SlackWorkspace.objects.filter(
        project__organization=notice.account.organization_id, is_active=True
    )
    return list(workspaces.exclude(credits_channel_id="").defer("bot_token"))


def _claim(key: str, crossed: ThresholdNotice, workspace: SlackWorkspace) -> Notice:
    notice, _ = Notice.objects.get_or_create(
        key=key,
        defaults={
            "kind": Notice.Kind.CREDITS,
            "workspace": workspace,
            "channel_id": workspace.credits_channel_id,
            "text": _text(crossed),
        },
    )
    return notice


def _text(crossed: ThresholdNotice) -> str:
    account = crossed.account
    name = RESOURCES[account.resource].title
    if account.resource == AI_CREDITS:
        name = f"{settings.BOT_NAME} {name}"
    if crossed.percent == ThresholdNotice.RESOLVED:
        return wording.credits_are_back(credits_name=name)
    state = QuotaState.objects.filter(
        organization=account.organization_id, resource=account.resource
    ).first()
    return wording.credits_running_low(
        crossed.percent,
        state.published.resets_at if state else None,
        credits_name=name,
        billing_url=settings.BILLING_URL,
    )
