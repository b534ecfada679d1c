"""Which task a Slack thread belongs to: at most one active task per thread, by constraint."""

from django.utils import timezone

from coding_tasks.models import CodingTask
from projects.models import SlackWorkspace


def active_task(workspace: SlackWorkspace, channel_id: str, thread_ts: str) -> CodingTask | None:
    """Return the thread's active task, or None."""
    return CodingTask.objects.filter(
        workspace=workspace,
        channel_id=channel_id,
        thread_ts=thread_ts,
        state=CodingTask.State.ACTIVE,
    ).first()


def lock_active_task(
    workspace: SlackWorkspace, channel_id: str, thread_ts: str
) -> CodingTask | None:
    """Return the thread's active task, locked to the end of the transaction, or None.

    While it is locked the task does not finish: whatever is recorded for it meanwhile is handled.
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


def abandon(workflow_id: str) -> None:
    """Close the task of a workflow that is gone (terminated by an operator, say).

    Its thread is then free for a new task.
    """
    CodingTask.objects.filter(workflow_id=workflow_id, state=CodingTask.State.ACTIVE).update(
        state=CodingTask.State.FAILED, finished_at=timezone.now()
    )
