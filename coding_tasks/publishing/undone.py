"""Which changes of a task were undone, and what its branch was before each."""

from django.db.models import Q, QuerySet

from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.models.kept_changes import ChangeUndo, RunChange

_DONE = Q(run__undo__state=ChangeUndo.State.DONE)
_NO_REVERT = Q(run__undo__revert_commit="")


def is_open(task: CodingTask) -> bool:
    """Return whether a change of the task is being undone."""
    return ChangeUndo.objects.filter(run__task=task, state=ChangeUndo.State.WANTED).exists()


def is_asked(run: TaskRun) -> bool:
    """Return whether somebody wanted the run's change undone."""
    return ChangeUndo.objects.filter(run=run).exists()


def remaining(task: CodingTask) -> QuerySet[RunChange]:
    """Return the changes of a task that were not undone, oldest first."""
    return RunChange.objects.filter(run__task=task).exclude(_DONE).order_by("pk")


def without_revert(task: CodingTask) -> QuerySet[RunChange]:
    """Return the changes that were undone without a further commit on the branch."""
    return RunChange.objects.filter(_DONE & _NO_REVERT, run__task=task)


def commit_before(change: RunChange) -> str:
    """Return the commit that the branch had before a change, or "" if the change began the branch.

    The parent of the first change is a commit of the default branch.
    """
    earlier = RunChange.objects.filter(run__task__runs=change.run_id, pk__lt=change.pk)
    return change.parent if earlier.exclude(_DONE & _NO_REVERT).exists() else ""


def tip_with(change: RunChange) -> str:
    """Return the tip of the branch if the change is the newest that remains.

    Later changes may have been undone by commits on top of it.
    """
    later = ChangeUndo.objects.filter(
        run__task__runs=change.run_id, run__change__pk__gt=change.pk, state=ChangeUndo.State.DONE
    ).exclude(revert_commit="")
    newest = later.order_by("ended_at").last()
    return newest.revert_commit if newest else change.commit
