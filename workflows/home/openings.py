"""When a person's Home tab has to be published: after they opened it, or clicked in it.

An opening is a row and a hint to Celery, so the webhook never calls Slack. Openings that follow
each other quickly are published once.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from projects.hints import run_soon
from projects.models import SlackWorkspace
from workflows.models import HomeTab

PUBLISH_HOME = "workflows.tasks.publish_home"
FRESH = timedelta(seconds=10)
"""How long a published tab is fresh. After an opening within this time, it is published later."""

KEPT = timedelta(days=90)
"""How long the row of a tab that nobody opens is kept. The next opening makes a new one."""


def note_opened(workspace: SlackWorkspace, user_id: str) -> None:
    """Publish the person's tab soon, without the answer to an earlier click."""
    now = timezone.now()
    _make_due(workspace, user_id, now, said="", fresh=FRESH)


def note_click(workspace: SlackWorkspace, user_id: str, said: str = "") -> None:
    """Publish the person's tab at once after a click in it, with the answer to the click."""
    _make_due(workspace, user_id, timezone.now(), said=said[:1000], fresh=timedelta(0))


def forget_old(now: datetime) -> None:
    """Delete the rows of tabs that nobody has opened for a long time, or that were given up."""
    old = Q(published_at=None) | Q(published_at__lt=now - KEPT)
    HomeTab.objects.filter(old, due_at=None).delete()


def _make_due(
    workspace: SlackWorkspace, user_id: str, now: datetime, *, said: str, fresh: timedelta
) -> None:
    tab, is_new = HomeTab.objects.get_or_create(
        workspace=workspace, user_id=user_id, defaults={"due_at": now, "said": said}
    )
    due = now if tab.published_at is None else max(now, tab.published_at + fresh)
    if not is_new:
        # A tab that is being published, or waits for a rate limit, keeps its time. Its publisher
        # sees the new revision.
        keeps = Case(When(due_at__isnull=False, then=F("due_at")), default=Value(due))
        HomeTab.objects.filter(pk=tab.pk).update(
            revision=F("revision") + 1, due_at=keeps, said=said
        )
    if due <= now:
        transaction.on_commit(lambda: run_soon(PUBLISH_HOME, str(tab.pk)))
