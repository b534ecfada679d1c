"""Stop a task: end its runs and revoke their tokens."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from projects.authentication.credentials import revoke_run_tokens


@transaction.atomic
def stop(task_id: UUID, why: str) -> bool:
    """End an active task and its unfinished runs; return whether a model may be answering now.

    No further call for them is admitted. A call that is under way is booked when it ends.
    """
    now = timezone.now()
    active = CodingTask.objects.select_for_update().filter(
        pk=task_id, state=CodingTask.State.ACTIVE
    )
    if not active.exists():
        return False
    # An attempt mints its token under the run's lock, so none can be minted after this.
    runs = TaskRun.objects.select_for_update().filter(task=task_id, state__in=TaskRun.UNFINISHED)
    states = dict(runs.values_list("pk", "state"))
    TaskRun.objects.filter(pk__in=states).update(
        state=TaskRun.State.STOPPED, error=why[:200], finished_at=now
    )
    for run_id in states:
        revoke_run_tokens(run_id)
    active.update(state=CodingTask.State.STOPPED, finished_at=now)
    return TaskRun.State.RUNNING in states.values()
