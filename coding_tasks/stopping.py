"""Stopping a task: nothing more is begun for it, and its tokens end."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.credentials import revoke_run_tokens


@transaction.atomic
def stop(task_id: UUID, why: str) -> bool:
    """End an active task and its unfinished runs; return whether a model may be answering just now.

    No call is admitted for them from now on. A call that is under way is booked when it ends.
    """
    now = timezone.now()
    active = CodingTask.objects.select_for_update().filter(
        pk=task_id, state=CodingTask.State.ACTIVE
    )
    if not active.exists():
        return False
    # An attempt at a run mints its token under the lock of the run: after this it cannot.
    runs = TaskRun.objects.select_for_update().filter(task=task_id, state__in=TaskRun.UNFINISHED)
    states = dict(runs.values_list("pk", "state"))
    TaskRun.objects.filter(pk__in=states).update(
        state=TaskRun.State.STOPPED, error=why[:200], finished_at=now
    )
    for run_id in states:
        revoke_run_tokens(run_id)
    active.update(state=CodingTask.State.STOPPED, finished_at=now)
    return TaskRun.State.RUNNING in states.values()
