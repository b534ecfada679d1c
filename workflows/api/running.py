"""Starting and stopping the work on API tasks."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet

from coding_tasks import api_tasks
from coding_tasks.models import CodingTask
from workflows.intake.deferral import left_to_a_sweep
from workflows.stopping.work import stop_work
from workflows.temporal import client

ANNOUNCED_WITHIN = timedelta(seconds=3)
"""How long a request can take to tell the workflow of a run that it recorded."""


@dataclass(frozen=True)
class StoppedTask:
    """Whether there was work to stop, and what may still go on: a model's answer, a push."""

    stopped: bool
    in_flight: bool = False
    pushing: bool = False


def start_or_keep(task: CodingTask) -> None:
    """Start the task's work now, or leave it to the sweep. Never raises."""
    with left_to_a_sweep("a task", task=str(task.pk)):
        client.start_api_task(task)


def unannounced(now: datetime) -> QuerySet[CodingTask]:
    """Return the tasks whose workflows don't know of a run yet, the oldest tasks first."""
    return api_tasks.to_announce(now, ANNOUNCED_WITHIN).order_by("created_at")


def stop(task: CodingTask, why: str) -> StoppedTask:
    """End the task's work: revoke its tokens, end its rows, then cancel its workflow."""
    stopped = stop_work(task, why)
    if stopped is None:
        return StoppedTask(stopped=False)
    client.cancel_all([task.workflow_id])
    return StoppedTask(True, stopped.in_flight, stopped.pushing)
