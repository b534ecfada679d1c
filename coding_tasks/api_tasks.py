"""Tasks over the API: their rows, from the first message to the last.

A task is active while it has work. Its workflow takes one run after the other, and ends when there
are no more; the next message makes the task active again. All of this happens under the lock of
the task's row, so no message is left behind.
"""

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from coding_tasks import runs
from coding_tasks.creation import title_of
from coding_tasks.models import CodingTask, ProjectAgent, Repository, TaskRun

WORKFLOW_ID = "task-{task}"


MOST_ACTIVE = 1_000
"""Tasks of a project that have work at once."""
MOST_WAITING = 50
"""Messages of a task that wait for their answers at once."""


class TaskClosed(Exception):
    """The task was stopped, so it takes no further message."""


class TooMuchWork(Exception):
    """The project has too many active tasks, or the task too many waiting messages."""


@dataclass(frozen=True)
class NewTask:
    """What somebody asked for. `user_id` is None for a program with a key of its own.

    If `agent` or `model` is empty, the project's choice applies.
    """

    repository: Repository
    origin: str
    user_id: int | None
    text: str
    agent: str = ""
    model: str = ""


@transaction.atomic
def create(new: NewTask) -> TaskRun:
    """Return the first run of a new task. The caller must have asked the gate.

    Raises `TooMuchWork`.
    """
    task_id = uuid4()
    project = new.repository.project
    active = without_thread().filter(state=CodingTask.State.ACTIVE, project=project).order_by()
    if active[:MOST_ACTIVE].count() == MOST_ACTIVE:
        raise TooMuchWork
    task = CodingTask.objects.create(
        pk=task_id,
        project=project,
        repository=new.repository,
        origin=new.origin,
        user_id=new.user_id,
        title=title_of(new.text),
        workflow_id=WORKFLOW_ID.format(task=task_id),
        agent=new.agent or ProjectAgent.of(project).agent,
        model=new.model,
    )
    return _add_run(task, new.text)


@transaction.atomic
def add_message(task: CodingTask, text: str) -> TaskRun:
    """Return a new run for a further message. The caller must have asked the gate.

    Raises `TaskClosed` and `TooMuchWork`.
    """
    locked = CodingTask.objects.select_for_update().get(pk=task.pk)
    if locked.state == CodingTask.State.STOPPED:
        raise TaskClosed
    if locked.runs.filter(state=TaskRun.State.QUEUED).count() >= MOST_WAITING:
        raise TooMuchWork
    CodingTask.objects.filter(pk=task.pk).update(state=CodingTask.State.ACTIVE, finished_at=None)
    return _add_run(locked, text)


@transaction.atomic
def next_run(task_id: UUID | str) -> TaskRun | None:
    """Return the oldest run that has not ended. If there is none, close the task."""
    task = CodingTask.objects.select_for_update().get(pk=task_id)
    if task.state != CodingTask.State.ACTIVE:
        return None
    unfinished = task.runs.filter(state__in=TaskRun.UNFINISHED)
    run = unfinished.order_by("created_at", "pk").first()
    if run is None:
        _close(task)
    return run


@transaction.atomic
def give_up(
    task_id: UUID | str, why: str, *, ours: bool, only: Container[UUID] | None = None
) -> None:
    """Fail the runs that have not ended, or only those in `only`.

    If the failure is `ours`, what they cost is given back. Then close the task, unless it still has
    a run that has not ended.
    """
    task = CodingTask.objects.select_for_update().get(pk=task_id)
    if task.state != CodingTask.State.ACTIVE:
        return
    unfinished = list(task.runs.filter(state__in=TaskRun.UNFINISHED))
    doomed = [run for run in unfinished if only is None or run.pk in only]
    for run in doomed:
        runs.fail(run, why, ours=ours)
    if len(doomed) == len(unfinished):
        _close(task)


def without_thread() -> QuerySet[CodingTask]:
    """Return the tasks over the API."""
    return CodingTask.objects.exclude(origin=CodingTask.Origin.SLACK)


def to_announce(now: datetime, older_than: timedelta) -> QuerySet[CodingTask]:
    """Return the active tasks whose workflow was not told of a run that is at least this old."""
    unannounced = TaskRun.objects.filter(
        task=OuterRef("pk"),
        state=TaskRun.State.QUEUED,
        announced_at=None,
        created_at__lte=now - older_than,
    )
    return without_thread().filter(Exists(unannounced), state=CodingTask.State.ACTIVE)


def unannounced_runs(task: CodingTask) -> list[UUID]:
    """Return the runs that the task's workflow was not told of."""
    found = task.runs.filter(state=TaskRun.State.QUEUED, announced_at=None)
    return list(found.values_list("pk", flat=True))


def mark_announced(run_ids: list[UUID]) -> None:
    """Record that the task's workflow was told of these runs."""
    TaskRun.objects.filter(pk__in=run_ids).update(announced_at=timezone.now())


def _close(task: CodingTask) -> None:
    """Close the task, as failed if its last run failed."""
    last = task.runs.order_by("created_at", "pk").last()
    failed = last is not None and last.state == TaskRun.State.FAILED
    runs.finish_task(task, CodingTask.State.FAILED if failed else CodingTask.State.DONE)


def _add_run(task: CodingTask, text: str) -> TaskRun:
    run_id = uuid4()
    return TaskRun.objects.create(pk=run_id, task=task, message_ts=run_id.hex, request=text)
