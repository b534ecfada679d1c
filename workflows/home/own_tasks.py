"""The tasks of one person, those at work first, with what they cost."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, OuterRef

from billing.reports.usage import usage_of_task_runs
from coding_tasks.models import CodingTask, TaskRun
from projects.models import SlackWorkspace

MOST_AT_WORK = 10


@dataclass(frozen=True, slots=True)
class OwnTask:
    """One task of a person. `state` is that of its unfinished run, or else of the task."""

    title: str
    permalink: str
    state: str
    credits_micro: int
    run_id: UUID | None = None
    """Its unfinished run, which can be stopped."""
    since: datetime | None = None
    """When that run began."""


@dataclass(frozen=True, slots=True)
class OwnTasks:
    """The newest tasks of a person."""

    at_work: tuple[OwnTask, ...]
    recent: tuple[OwnTask, ...]
    """Without those at work."""


def own_tasks(workspace: SlackWorkspace, user_id: str, most_recent: int = 5) -> OwnTasks:
    """Return a person's tasks in a workspace. Needs four queries, however many there are."""
    mine = CodingTask.objects.filter(workspace=workspace, owner_slack_user_id=user_id)
    unfinished = TaskRun.objects.filter(task=OuterRef("pk"), state__in=TaskRun.UNFINISHED)
    at_work = list(
        mine.filter(Exists(unfinished), state=CodingTask.State.ACTIVE).order_by("-created_at")[
            :MOST_AT_WORK
        ]
    )
    known = {task.pk for task in at_work}
    newest = mine.order_by("-created_at")[: most_recent + len(known)]
    recent = [task for task in newest if task.pk not in known][:most_recent]
    runs = list(
        TaskRun.objects.filter(task__in=[*at_work, *recent]).only("task_id", "state", "started_at")
    )
    costs: Counter[UUID] = Counter()
    task_of = {run.pk: run.task_id for run in runs}
    for run_id, micro in usage_of_task_runs(task_of).items():
        costs[task_of[run_id]] += micro
    unfinished_runs = {run.task_id: run for run in runs if run.state in TaskRun.UNFINISHED}
    return OwnTasks(
        at_work=tuple(_own(task, costs[task.pk], unfinished_runs.get(task.pk)) for task in at_work),
        recent=tuple(_own(task, costs[task.pk], None) for task in recent),
    )


def others_at_work(workspace: SlackWorkspace, user_id: str) -> int:
    """Return how many runs of the workspace's project work for other people."""
    at_work = TaskRun.objects.filter(
        state=TaskRun.State.RUNNING, task__project=workspace.project_id
    )
    return at_work.exclude(task__workspace=workspace, task__owner_slack_user_id=user_id).count()


def _own(task: CodingTask, credits_micro: int, run: TaskRun | None) -> OwnTask:
    return OwnTask(
        title=task.title,
        permalink=task.permalink,
        state=task.state if run is None else run.state,
        credits_micro=credits_micro,
        run_id=None if run is None else run.pk,
        since=None if run is None else run.started_at,
    )
