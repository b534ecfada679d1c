"""Starting and stopping the work on API tasks, and ending tasks whose workflows are gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db.models import QuerySet
from django.utils import timezone
from temporalio.client import WorkflowExecutionStatus

from coding_tasks import api_tasks
from coding_tasks.models import CodingTask, TaskRun
from workflows import client, unfinished
from workflows.intake.deferral import left_to_a_sweep
from workflows.stopping.work import stop_work

log = structlog.get_logger(__name__)

ANNOUNCED_WITHIN = timedelta(seconds=3)
"""How long a request can take to tell the workflow of a run that it recorded."""
LOOKED_FOR_AFTER = timedelta(minutes=2)
"""The age at which a sweep begins to check that a task has a workflow."""
BEGUN_ANEW_WITHIN = timedelta(minutes=15)
"""The greatest age of a run that begins anew. Nobody still expects an answer to an older one."""
_BEGINS_ANEW = (None, WorkflowExecutionStatus.COMPLETED)
"""The statuses after which a run can begin anew: Temporal lost the workflow, or it saw no run."""


@dataclass(frozen=True)
class StoppedTask:
    """Whether there was work to stop, and what may go on: a model's answer, a push."""

    stopped: bool
    in_flight: bool = False
    pushing: bool = False


def start_or_keep(task: CodingTask) -> None:
    """Start the task's work now, or leave it to the sweep. Never raises."""
    with left_to_a_sweep("a task", task=str(task.pk)):
        client.start_api_task(task)


def unannounced(now: datetime) -> QuerySet[CodingTask]:
    """Return the tasks whose workflows were not told of a run, the oldest tasks first."""
    return api_tasks.to_announce(now, ANNOUNCED_WITHIN).order_by("created_at")


def stop(task: CodingTask, why: str) -> StoppedTask:
    """End the task's work: revoke its tokens, end its rows, then cancel its workflow."""
    stopped = stop_work(task, why)
    if stopped is None:
        return StoppedTask(stopped=False)
    client.cancel_all([task.workflow_id])
    return StoppedTask(True, stopped.in_flight, stopped.pushing)


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
