"""Pushes, stops and undos in one order: what was stopped is not pushed, or its stop says so."""

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.models.kept_changes import RunChange
from coding_tasks.publishing import undone


def to_be_pushed(task: CodingTask) -> QuerySet[RunChange]:
    """Return the task's changes whose push is due or under way."""
    agreed = Q(agreed_at__isnull=False, settled_at=None)
    return RunChange.objects.filter(Q(note="") | agreed, run__task=task, pushed_at=None)


@transaction.atomic
def claim_push(run: TaskRun) -> bool:
    """Record that the run's change is about to be pushed; return False if it must not be.

    That is so if its task was stopped, or if somebody undid it. Both lock the same row, so they
    either prevent the push or find that it has begun. Somebody who agrees to a push after the stop
    still wants it.
    """
    task = CodingTask.objects.select_for_update().get(pk=run.task_id)
    change = RunChange.objects.filter(run=run)
    if undone.is_asked(run):
        return False
    stopped = task.state == CodingTask.State.STOPPED
    if stopped and not change.filter(agreed_at__gt=task.finished_at).exists():
        return False
    change.update(push_began_at=timezone.now())
    return True
