"""The branch of each task."""

from coding_tasks.kept_changes import TaskBranch
from coding_tasks.models import CodingTask
from coding_tasks.repositories.branch_names import branch_name


def branch_of(task: CodingTask) -> TaskBranch:
    """Return the branch of a task. Its name stays the same, whatever becomes of the title."""
    branch, _ = TaskBranch.objects.get_or_create(
        task=task, defaults={"name": branch_name(task.title, task.pk)}
    )
    return branch
