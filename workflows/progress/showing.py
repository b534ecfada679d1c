"""Show the progress of runs, and remove it when they end.

This runs every two seconds and needs only the rows, so any process may die at any time. A run that
ends quickly shows no progress, because its answer comes soon enough.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet

from billing.reports.usage import usage_of_task_runs
from coding_tasks.models import CodingTask, TaskRun
from workflows import notices
from workflows.messages import edits, thread_order
from workflows.models import Notice
from workflows.progress import message, state
from workflows.requests import message_of

WITHOUT_STEPS = timedelta(seconds=30)
"""How long a run works before it is shown even without a step."""
EVERY = timedelta(seconds=3)
EDITS_A_MINUTE = 40
"""For one workspace. Slack allows 50 calls of `chat.update` a minute for all its messages."""
PUBLISHING = timedelta(minutes=15)
"""How long the progress of a run stays after its work is done, while the change is published."""
_MOST_RUNS = 200
_LONGEST = timedelta(days=1)


def update(now: datetime) -> list[Notice]:
    """Bring the progress of all runs up to date; return the notices that are due."""
    at_work = list(_at_work(now)[:_MOST_RUNS])
    used = usage_of_task_runs(run.pk for run in at_work)
    busy = Counter(run.task.workspace_id for run in at_work)
    for run in at_work:
        every = max(EVERY, timedelta(minutes=busy[run.task.workspace_id]) / EDITS_A_MINUTE)
        _show(run, used.get(run.pk, 0), now, every)
    _withdraw_ended(now)
    return list(notices.due(now).filter(kind=Notice.Kind.PROGRESS)[:_MOST_RUNS])


def _at_work(now: datetime) -> QuerySet[TaskRun]:
    since = now - timedelta(seconds=settings.PROGRESS_AFTER_SECONDS)
    return (
        TaskRun.objects.filter(
            state=TaskRun.State.RUNNING,
            started_at__lte=since,
            started_at__gt=now - _LONGEST,
            task__origin=CodingTask.Origin.SLACK,
        )
        .select_related("task__repository")
        .order_by("-started_at")
    )


def _show(run: TaskRun, credits_micro: int, now: datetime, every: timedelta) -> None:
    progress = state.read(run, credits_micro, now)
    shown = Notice.objects.filter(key=thread_order.progress_key(run)).first()
    text, blocks = message.text_of(progress), message.blocks_of(progress)
    if shown is not None and shown.state == Notice.State.WITHDRAWN:
        edits.reopen(shown)  # the run was paused, and goes on
    if shown is not None:
        edits.revise(shown, text, blocks, every=every)
    elif progress.steps or (run.started_at and run.started_at <= now - WITHOUT_STEPS):
        about = message_of(run)
        notices.claim(
            thread_order.progress_key(run), Notice.Kind.PROGRESS, about, text, blocks=blocks
        )


def _withdraw_ended(now: datetime) -> None:
    """Withdraw the progress of runs that no longer work."""
    shown = Notice.objects.filter(kind=Notice.Kind.PROGRESS, withdrawn=False)
    by_run = {notice.key.removeprefix(thread_order.PROGRESS_KEY): notice for notice in shown}
    for run_id in by_run.keys() - set(map(str, _working(by_run, now))):
        edits.withdraw(by_run[run_id])


def _working(run_ids: Iterable[str], now: datetime) -> Iterable[object]:
    """Return the runs among these that work, or whose change is being published."""
    runs = TaskRun.objects.filter(pk__in=list(run_ids))
    working = runs.filter(state=TaskRun.State.RUNNING)
    done = runs.filter(state=TaskRun.State.SUCCEEDED, finished_at__gt=now - PUBLISHING)
    answers = {notices.answer_key(run): run.pk for run in done}
    answered = Notice.objects.filter(key__in=answers).values_list("key", flat=True)
    publishing = {answers[key] for key in answers.keys() - set(answered)}
    return {*working.values_list("pk", flat=True), *publishing}
