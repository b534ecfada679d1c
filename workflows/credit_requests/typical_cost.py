"""Estimate what one task of a project may cost, from its earlier runs."""

from billing.reports.usage import usage_of_task_runs
from coding_tasks.models import TaskRun
from projects.models import Project

_RUNS = 100
_FEWEST = 5
"""With fewer runs there is no history to speak of."""


def typical_cost_micro(project: Project) -> int | None:
    """Return the cost that nine of ten recent runs of the project did not exceed, in micro-credits.

    Return None if there were too few.
    """
    recent = TaskRun.objects.filter(task__project=project, state=TaskRun.State.SUCCEEDED)
    runs = recent.order_by("-created_at").values_list("pk", flat=True)[:_RUNS]
    costs = sorted(usage_of_task_runs(runs).values())
    if len(costs) < _FEWEST:
        return None
    return costs[-(-9 * len(costs) // 10) - 1]
