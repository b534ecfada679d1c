"""What comparable runs of a project cost, from the ledger."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from billing.reports.usage import usage_of_task_runs
from coding_tasks.models import CodingTask, TaskRun
from workflows.models import RunQuote
from workflows.quotes.ranges import FEWEST, MOST, Range, range_of

SETTLED_AFTER = timedelta(minutes=1)
"""How long after a run's end its last call may still reach the ledger."""
_MOST_TASKS = 400
_MOST_RUNS = 800
History = RunQuote.History


@dataclass(frozen=True)
class _Run:
    run_id: UUID
    agent: str
    model: str
    used_all_accepted: bool


def comparable(run: TaskRun, model: str, now: datetime) -> tuple[History, Range | None]:
    """Return what runs of the same project, agent and model cost, or those of the whole project.

    Only runs that were asked for in Slack count, because others pay from another bucket. Only the
    newest tasks are read, which limits the number of rows.
    """
    finished = _finished(run.task, now)
    alike = [each for each in finished if _is_alike(each, run.task.agent, model)]
    found = range_of(_costs(alike))
    if found is not None:
        return History.AGENT, found
    if len(finished) >= FEWEST and len(finished) > len(alike):
        found = range_of(_costs(finished))
    return (History.NONE if found is None else History.PROJECT), found


def _finished(task: CodingTask, now: datetime) -> list[_Run]:
    """Return the runs that show what work costs, newest first.

    Runs whose requester chose a smaller number don't show that, and stopped ones don't either. A
    failed run shows it only if it failed because it used all that was accepted.
    """
    tasks = CodingTask.objects.filter(project=task.project_id, origin=CodingTask.Origin.SLACK)
    newest = tasks.order_by("-created_at").values("pk")[:_MOST_TASKS]
    used_all = Q(state=TaskRun.State.FAILED, used_all_accepted=True)
    rows = (
        TaskRun.objects.filter(
            Q(state=TaskRun.State.SUCCEEDED) | used_all,
            task__in=newest,
            finished_at__lte=now - SETTLED_AFTER,
        )
        .exclude(quote__state=RunQuote.State.SMALLER)
        .order_by("-created_at")
        .values_list("pk", "task__agent", "model", "used_all_accepted")[:_MOST_RUNS]
    )
    return [_Run(*row) for row in rows]


def _is_alike(past: _Run, agent: str, model: str) -> bool:
    """Return whether the run had the same agent and model. Old runs don't name their model."""
    return past.agent == agent and past.model in ("", model)


def _costs(runs: list[_Run]) -> list[int]:
    """Return what the newest of these runs cost, newest first, without those that cost nothing.

    A run that ended because it used all that was accepted would have cost more, but nobody knows
    how much. It counts as one and a half times its cost, so that the ranges grow if the work does.
    """
    newest = runs[:MOST]
    used = usage_of_task_runs(each.run_id for each in newest)
    costs = []
    for each in newest:
        micro = used.get(each.run_id, 0)
        if micro > 0:
            costs.append(micro * 3 // 2 if each.used_all_accepted else micro)
    return costs
