"""Which changes of a task were taken back, and what its branch was before each."""

from django.db.models import Q, QuerySet

from coding_tasks.kept_changes import ChangeUndo, RunChange
from coding_tasks.models import CodingTask

_DONE = Q(run__undo__state=ChangeUndo.State.DONE)
_NO_REVERT = Q(run__undo__revert_commit="")


def is_open(task: CodingTask) -> bool:
    """Return whether a change of the task is being taken back."""
    return ChangeUndo.objects.filter(run__task=task, state=ChangeUndo.State.WANTED).exists()


def remaining(task: CodingTask) -> QuerySet[RunChange]:
    """Return the changes of a task that were not taken back, oldest first."""
    return RunChange.objects.filter(run__task=task).exclude(_DONE).order_by("pk")


def without_revert(task: CodingTask) -> QuerySet[RunChange]:
    """Return the changes that were taken back without a further commit on the branch."""
    return RunChange.objects.filter(_DONE & _NO_REVERT, run__task=task)


def commit_before(change: RunChange) -> str:
    """Return the commit that the branch had before a change, or "" if the change began the branch.

    The parent of the first change is a commit of the default branch.
    """
    earlier = RunChange.objects.filter(run__task__runs=change.run_id, pk__lt=change.pk)
    return change.parent if earlier.exclude(_DONE & _NO_REVERT).exists() else ""
