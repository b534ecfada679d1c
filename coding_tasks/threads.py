"""The task of a Slack thread. A database constraint allows one active task per thread."""

from django.db import transaction
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.credentials import revoke_run_tokens
from projects.models import SlackWorkspace


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

    This frees the thread for a new task. What still works on the runs can spend no more credits.
    """
    now = timezone.now()
    tasks = CodingTask.objects.filter(workflow_id=workflow_id, state=CodingTask.State.ACTIVE)
    if tasks.update(state=CodingTask.State.FAILED, finished_at=now):
        left = TaskRun.objects.filter(
            task__workflow_id=workflow_id, state__in=TaskRun.UNFINISHED
        ).select_for_update()
        for run_id in left.values_list("pk", flat=True):
            revoke_run_tokens(run_id)
        left.update(state=TaskRun.State.FAILED, error="abandoned", finished_at=now)
