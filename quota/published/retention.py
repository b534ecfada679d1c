"""Deleting old changes, and the tombstones of tokens that no longer exist."""

from datetime import datetime, timedelta

from django.db.models import F, Q

from projects.change_feed import Change
from quota.models import SetMember
from quota.published import delta

CHANGES_KEPT = timedelta(days=7)
"""A reader of the feed that was away for longer gets a reset."""

TOMBSTONES_KEPT = timedelta(days=1)
"""Far longer than any publication can take."""


def prune(now: datetime) -> None:
    """Delete old rows. Raises `redis.RedisError`."""
    Change.objects.filter(created_at__lt=now - CHANGES_KEPT).delete()
    replaced = Q(project=None) | ~Q(token=F("project__api_token"))
    tombstones = SetMember.objects.filter(
        replaced, origin=SetMember.Origin.PUBLISHED, changed_at__lt=now - TOMBSTONES_KEPT
    )
    members = list(tombstones.values_list("pk", "resource", "token"))
    SetMember.objects.filter(pk__in=[pk for pk, _, _ in members]).delete()
    delta.forget((resource, token) for _, resource, token in members)
