"""Mentions whose workflows should be running but are unknown to Temporal.

That happens after Temporal lost its store.

A recent mention without a task begins anew, because nothing was done for it that could happen
twice. Older mentions and those with a task end, with one message in the thread if somebody waits
there.
"""

from datetime import datetime

import structlog
from django.db.models import QuerySet
from django.utils import timezone
from temporalio.client import WorkflowExecutionStatus

from coding_tasks.models import CodingTask
from workflows import unfinished
from workflows.models import FollowUp, Mention
from workflows.recovery.ages import BEGUN_ANEW_WITHIN, LOOKED_FOR_AFTER
from workflows.temporal import client

log = structlog.get_logger(__name__)


def suspects(now: datetime, at_most: int) -> list[Mention]:
    """Return mentions whose workflows should be running.

    These are at most `at_most` open mentions, and as many closed ones whose task is still active.
    The choice is random, so that other mentions get their turn at the next call.
    """
    active = CodingTask.objects.filter(state=CodingTask.State.ACTIVE)
    old = _with_workspace().filter(received_at__lte=now - LOOKED_FOR_AFTER).order_by("?")
    at_work = old.filter(workflow_id__in=active.values("workflow_id"))
    return [
        *old.filter(state=Mention.State.STARTED)[:at_most],
        *at_work.exclude(state=Mention.State.STARTED)[:at_most],
    ]


def check_workflow(mention: Mention) -> None:
    """Begin the mention anew or end it, if its workflow is no longer running.

    Raises `client.TemporalUnavailable`.
    """
    status = client.status_of(mention.workflow_id)
    if status is WorkflowExecutionStatus.RUNNING:
        return
    if status is None and _may_begin_anew(mention):
        log.warning("a lost workflow begins anew", workflow=mention.workflow_id)
        # The new workflow needs all follow-ups again, even if this process dies after starting it.
        told = FollowUp.objects.filter(
            workflow_id=mention.workflow_id, state=FollowUp.State.SIGNALLED
        )
        told.update(state=FollowUp.State.RECEIVED)
        client.start_mention(mention)
        return
    if not unfinished.left_behind([mention.workflow_id]).exists():
        return  # it ended normally after its mention was listed
    outcome = unfinished.in_words(status)
    log.warning("a workflow is gone", workflow=mention.workflow_id, outcome=outcome)
    unfinished.clear_up(mention.workflow_id, outcome)


def _may_begin_anew(mention: Mention) -> bool:
    return (
        # It may have ended since it was listed.
        Mention.objects.filter(pk=mention.pk, state=Mention.State.STARTED).exists()
        and mention.received_at > timezone.now() - BEGUN_ANEW_WITHIN
        and not CodingTask.objects.filter(workflow_id=mention.workflow_id).exists()
    )


def _with_workspace() -> QuerySet[Mention]:
    return Mention.objects.select_related("workspace").defer("workspace__bot_token")
