"""API tasks whose workflows should be running but are unknown to Temporal, or ended too early.

A task begins anew if its runs are recent and nothing was done for them that could happen twice.
Otherwise its runs end, and what they cost is given back.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog
from django.db.models import QuerySet
from django.utils import timezone
from temporalio.client import WorkflowExecutionStatus

from coding_tasks import api_tasks
from coding_tasks.models import CodingTask, TaskRun
from workflows import unfinished
from workflows.recovery.ages import BEGUN_ANEW_WITHIN, LOOKED_FOR_AFTER
from workflows.temporal import client

log = structlog.get_logger(__name__)

_BEGINS_ANEW = (None, WorkflowExecutionStatus.COMPLETED)
"""The statuses after which a run can begin anew: Temporal lost the workflow, or it saw no run."""


def suspects(now: datetime, at_most: int) -> QuerySet[CodingTask]:
    """Return up to `at_most` tasks whose workflows should be running, chosen at random."""
    active = api_tasks.without_thread().filter(state=CodingTask.State.ACTIVE)
    return active.filter(created_at__lte=now - LOOKED_FOR_AFTER).order_by("?")[:at_most]


def left_behind(workflow_ids: Sequence[str]) -> QuerySet[CodingTask]:
    """Return the tasks of these workflows that are still active."""
    active = api_tasks.without_thread().filter(state=CodingTask.State.ACTIVE)
    return active.filter(workflow_id__in=workflow_ids)


def check_workflow(task: CodingTask) -> None:
    """Begin the task's work anew or give it up, if its workflow is no longer running.

    Raises `client.TemporalUnavailable`.
    """
    # The rows are read first: a run that begins after this has a workflow that is running.
    unfinished_runs = list(task.runs.filter(state__in=TaskRun.UNFINISHED))
    if any(_is_unannounced(run) for run in unfinished_runs):
        return  # its workflow is about to be started
    status = client.status_of(task.workflow_id)
    if status is WorkflowExecutionStatus.RUNNING:
        return
    if status in _BEGINS_ANEW and all(map(_may_begin_anew, unfinished_runs)):
        log.warning("a task begins anew", workflow=task.workflow_id)
        client.start_api_task(task)
        return
    outcome = unfinished.in_words(status)
    log.warning("the workflow of a task is gone", workflow=task.workflow_id, outcome=outcome)
    ended: set[UUID] = {run.pk for run in unfinished_runs}
    api_tasks.give_up(task.pk, outcome, ours=True, only=ended)


def _is_unannounced(run: TaskRun) -> bool:
    return run.state == TaskRun.State.QUEUED and run.announced_at is None


def _may_begin_anew(run: TaskRun) -> bool:
    """Return whether the run is recent, and no work was done for it that could be repeated."""
    recent = run.created_at > timezone.now() - BEGUN_ANEW_WITHIN
    return run.state == TaskRun.State.QUEUED and recent
