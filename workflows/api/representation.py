"""Tasks and runs as JSON. Texts of agents, models and repositories are untrusted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from billing.reports.usage import (
    RunCall,
    calls_of_task_runs,
    given_back_to_task_runs,
    usage_of_task_runs,
)
from coding_tasks.agents.events import Event, to_json
from coding_tasks.models import CodingTask, RunChange, TaskBranch, TaskRun
from coding_tasks.publishing.secrets import hide_secrets
from coding_tasks.turns.places import is_in_line
from coding_tasks.turns.transcripts import events_of
from quota.representation import utc_time
from quota.resources import MICRO
from workflows.results import failure_wording
from workflows.wording import unescape

MOST_RUNS = 50
"""How many runs of a task are shown: the newest ones."""
MOST_CALLS = 200
"""How many calls of a run are shown: the newest ones."""
MOST_TRANSCRIPT = 50_000
"""Characters of a run's transcript that are shown, from its end."""


def summaries(tasks: Iterable[CodingTask]) -> list[dict[str, Any]]:
    """Return the tasks for a list, with what they used."""
    found = list(tasks)
    task_of = dict(TaskRun.objects.filter(task__in=found).values_list("pk", "task_id"))
    used = _by_task(task_of, usage_of_task_runs(task_of))
    given_back = _by_task(task_of, given_back_to_task_runs(task_of, with_attempts=True))
    branches = TaskBranch.objects.filter(task__in=found).in_bulk(field_name="task_id")
    return [
        _summary(task, branches.get(task.pk), used[task.pk], given_back[task.pk]) for task in found
    ]


def _by_task(task_of: Mapping[UUID, UUID], micro_of_runs: Mapping[UUID, int]) -> Counter[UUID]:
    sums: Counter[UUID] = Counter()
    for run_id, micro in micro_of_runs.items():
        sums[task_of[run_id]] += micro
    return sums


def detail(task: CodingTask) -> dict[str, Any]:
    """Return the task with its newest runs, in order, with their transcripts and calls."""
    run_ids = list(task.runs.values_list("pk", flat=True))
    newest = (
        task.runs.select_related("change")
        .defer("change__packed_patch", "change__description")
        .order_by("-created_at", "-pk")[:MOST_RUNS]
    )
    shown = list(reversed(newest))
    return {
        **_summary(
            task,
            TaskBranch.objects.filter(task=task).first(),
            sum(usage_of_task_runs(run_ids).values()),
            sum(given_back_to_task_runs(run_ids, with_attempts=True).values()),
        ),
        "runs": _runs(task, shown),
        "runs_left_out": len(run_ids) - len(shown),
    }


def one_run(task: CodingTask, run: TaskRun) -> dict[str, Any]:
    """Return one run of the task."""
    [shown] = _runs(task, [run])
    return shown


def credits_of(task: CodingTask) -> float:
    """Return the credits that the task used so far."""
    return sum(usage_of_task_runs(task.runs.values_list("pk", flat=True)).values()) / MICRO


def _summary(
    task: CodingTask, branch: TaskBranch | None, used_micro: int, given_back_micro: int
) -> dict[str, Any]:
    return {
        "id": str(task.pk),
        "origin": task.origin,
        "state": task.state,
        "title": task.title,
        "repository": task.repository_name,
        "repository_id": task.repository_id,
        "agent": task.agent,
        "model": task.model or None,
        "owner": task.user.get_username() if task.user else None,
        "branch": branch.name if branch else None,
        "pull_request": (branch.pull_request or None) if branch else None,
        "credits": used_micro / MICRO,
        "credits_given_back": given_back_micro / MICRO,
        "created_at": utc_time(task.created_at),
        "finished_at": utc_time(task.finished_at),
    }


def _runs(task: CodingTask, runs: Sequence[TaskRun]) -> list[dict[str, Any]]:
    """Return the runs with their usage from the ledger."""
    ids = [run.pk for run in runs]
    used = usage_of_task_runs(ids)
    given_back = given_back_to_task_runs(ids, with_attempts=True)
    calls = calls_of_task_runs(ids)
    return [
        {
            **_run(task, run),
            "credits": used.get(run.pk, 0) / MICRO,
            "credits_given_back": given_back.get(run.pk, 0) / MICRO,
            "calls": [_call(call) for call in calls.get(run.pk, [])[-MOST_CALLS:]],
        }
        for run in runs
    ]


def _run(task: CodingTask, run: TaskRun) -> dict[str, Any]:
    transcript, left_out = _transcript(run)
    return {
        "id": str(run.pk),
        "state": run.state,
        "request": run.request,
        "answer": run.answer or None,
        "error": run.error or None,
        "message": _message(task, run),
        "waits_for_place": is_in_line(run),
        "created_at": utc_time(run.created_at),
        "started_at": utc_time(run.started_at),
        "finished_at": utc_time(run.finished_at),
        "change": _change(run),
        "transcript": transcript,
        "transcript_left_out": left_out,
    }


def _call(call: RunCall) -> dict[str, Any]:
    return {
        "at": utc_time(call.occurred_at),
        "model": call.model,
        "input": call.input_tokens,
        "output": call.output_tokens,
        "credits": call.credits_micro / MICRO,
    }


def _message(task: CodingTask, run: TaskRun) -> str | None:
    """Return why the run failed, in a sentence, or None if it didn't fail."""
    if run.state != TaskRun.State.FAILED:
        return None
    words = failure_wording.sentence(
        run.error,
        repository=task.repository_name,
        agent=task.agent,
        resource=task.resource,
    )
    return unescape(words)


def _change(run: TaskRun) -> dict[str, Any] | None:
    change: RunChange | None = getattr(run, "change", None)
    if change is None:
        return None
    return {
        "commit": change.commit,
        "branch": change.branch,
        "files": change.files,
        "added": change.added,
        "removed": change.removed,
        "pushed": change.pushed_at is not None,
        "note": change.note or None,
        "questions": [] if change.pushed_at or change.agreed_at else change.questions,
    }


def _transcript(run: TaskRun) -> tuple[list[dict[str, Any]], int]:
    """Return the last events of a run that fit, in order, and how many earlier ones don't."""
    events = [event for event in events_of(run) if event.kind != "session"]
    shown: list[dict[str, Any]] = []
    left = MOST_TRANSCRIPT
    for event in reversed(events):
        left -= _length(event)
        if left < 0:
            break
        shown.append(
            {
                name: hide_secrets(value) if isinstance(value, str) else value
                for name, value in to_json(event).items()
            }
        )
    return shown[::-1], len(events) - len(shown)


def _length(event: Event) -> int:
    return 50 + sum(len(value) for value in vars(event).values() if isinstance(value, str))
