"""Publish Home tabs that are due. A tab that could not be published is due again later.

https://docs.slack.dev/reference/methods/views.publish
"""

from datetime import datetime, timedelta

import structlog
from django.db.models import F, QuerySet
from django.utils import timezone

from workflows.home import openings
from workflows.home.contents import read
from workflows.home.view import home_view, refusal_view
from workflows.models import HomeTab
from workflows.slack import access, pauses
from workflows.slack.block_kit import Block
from workflows.slack.client import Failure, client_for, failure_of

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=45)
_ACCESS_LASTS = timedelta(minutes=5)
"""How long Slack's answer about a person's access is reused here. Work and clicks ask each time."""
_MOST_ATTEMPTS = 8
_METHODS = {"views.publish", "users.info"}


def due(now: datetime) -> QuerySet[HomeTab]:
    """Return the tabs to publish now, the longest due first."""
    return HomeTab.objects.filter(due_at__lte=now).order_by("due_at")


def publish(tab: HomeTab) -> None:
    """Publish the tab if it is due and no other process has it. Failures of Slack are not raised.

    Reading it takes about fifteen queries. All tabs of a team share one reading of its usage.
    """
    now = timezone.now()
    lease = now + _LEASE
    taken = HomeTab.objects.filter(pk=tab.pk, due_at__lte=now)
    if not taken.update(due_at=lease, attempts=F("attempts") + 1):
        return
    rows = HomeTab.objects.select_related("workspace__project__organization")
    tab = rows.defer("workspace__bot_token").get(pk=tab.pk)
    if tab.attempts > _MOST_ATTEMPTS:  # the earlier ones were killed
        _give_up(tab, lease, "too many attempts")
        return
    pause = pauses.find(tab.workspace_id, _METHODS, now)
    if pause.until is not None:
        _mine(tab, lease).update(due_at=pause.until, attempts=F("attempts") - 1)
        return
    try:
        view = _view(tab, now)
        client_for(tab.workspace).views_publish(user_id=tab.user_id, view=view)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        pauses.note_failure(tab.workspace_id, failure, now)
        _keep_failure(tab, lease, failure)
    else:
        if pause.is_trial:
            pauses.note_answer(tab.workspace_id)
        shown = {"published_at": now, "attempts": 0}
        if not _mine(tab, lease).filter(revision=tab.revision).update(due_at=None, **shown):
            again = timezone.now() + openings.FRESH
            _mine(tab, lease).update(due_at=again, **shown)


def _view(tab: HomeTab, now: datetime) -> Block:
    workspace = tab.workspace
    if tab.access_until is None or tab.access_until <= now:
        answer = access.check(workspace, tab.user_id)
        if answer is not access.Access.GRANTED:
            return refusal_view(access.refusal_text(workspace, answer, tab.user_id))
        HomeTab.objects.filter(pk=tab.pk).update(access_until=now + _ACCESS_LASTS)
    return home_view(read(workspace, tab.user_id, now), tab.said)


def _keep_failure(tab: HomeTab, lease: datetime, failure: Failure) -> None:
    if failure.is_permanent or tab.attempts >= _MOST_ATTEMPTS:
        _give_up(tab, lease, failure.error)
        return
    wait = 2**tab.attempts if failure.retry_after is None else failure.retry_after
    _mine(tab, lease).update(due_at=timezone.now() + timedelta(seconds=wait))


def _give_up(tab: HomeTab, lease: datetime, error: str) -> None:
    log.warning("a Home tab was given up", workspace=tab.workspace_id, error=error)
    _mine(tab, lease).update(due_at=None, attempts=0)


def _mine(tab: HomeTab, lease: datetime) -> QuerySet[HomeTab]:
    return HomeTab.objects.filter(pk=tab.pk, due_at=lease)
