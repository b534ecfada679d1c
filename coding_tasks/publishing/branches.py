"""The branch of each task."""

from django.db.models import QuerySet

from coding_tasks.models import CodingTask
from coding_tasks.models.kept_changes import RunChange, TaskBranch
from coding_tasks.repositories.branch_names import branch_name


def branch_of(task: CodingTask) -> TaskBranch:
    """Return the branch of a task. Its name stays the same, whatever becomes of the title."""
    branch, _ = TaskBranch.objects.get_or_create(
        task=task, defaults={"name": branch_name(task.title, task.pk)}
    )
    return branch


def erase_changes(tasks: QuerySet[CodingTask]) -> None:
    """Delete what the tasks changed, and the titles in names of branches that nobody has seen."""
    RunChange.objects.filter(run__task__in=tasks).delete()
    for branch in TaskBranch.objects.filter(task__in=tasks, pushed_commit=""):
        TaskBranch.objects.filter(pk=branch.pk).update(name=branch_name("", branch.task_id))
