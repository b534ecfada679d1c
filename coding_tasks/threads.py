"""The task of a Slack thread. A database constraint allows one active task per thread."""

from django.db import transaction
from django.utils import timezone

from coding_tasks import runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace

ABANDONED = "abandoned"
"""The error of a run whose workflow is gone."""


def active_task(workspace: SlackWorkspace, channel_id: str, thread_ts: str) -> CodingTask | None:
    """Return the thread's active task, or None."""
    return (
        CodingTask.objects.filter(
            workspace=workspace,
            channel_id=channel_id,
            thread_ts=thread_ts,
            state=CodingTask.State.ACTIVE,
        )
        .select_related("project")
        .first()
    )


def lock_active_task(
    workspace: SlackWorkspace, channel_id: str, thread_ts: str
) -> CodingTask | None:
    """Return the thread's active task, locked until the end of the transaction, or None.

    The task cannot finish while it is locked, so messages recorded for it meanwhile are handled.
    """
    return (
        CodingTask.objects.select_for_update()
        .filter(
            workspace=workspace,
            channel_id=channel_id,
            thread_ts=thread_ts,
            state=CodingTask.State.ACTIVE,
        )
        .first()
    )


@transaction.atomic
def abandon(workflow_id: str) -> None:
    """Close the task and runs of a workflow that is gone, such as one an operator terminated.

    This frees the thread for a new task. The runs lose their tokens, so an agent that still works
    can spend no more credits, and what they cost is given back.
    """
    now = timezone.now()
    tasks = CodingTask.objects.filter(workflow_id=workflow_id, state=CodingTask.State.ACTIVE)
    if tasks.update(state=CodingTask.State.FAILED, finished_at=now):
        unfinished = TaskRun.objects.filter(
            task__workflow_id=workflow_id, state__in=TaskRun.UNFINISHED
        )
        for run in unfinished.select_related("task__project"):
            runs.fail(run, ABANDONED, ours=True)
