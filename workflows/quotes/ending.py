"""How a question ends: with an answer, without one in time, or with its run."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from billing.credits import exact
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.threads import lock_active_task
from projects.hints import run_soon
from projects.models import SlackWorkspace
from workflows import closing, notices
from workflows.messages import edits
from workflows.metrics import QUOTES
from workflows.models import Mention, Notice, RunQuote
from workflows.quotes import buttons, words
from workflows.requests import message_of
from workflows.stopping.work import stop_work

TELL_WORKFLOW = "workflows.tasks.tell_quote_answer"
DELETED = "deleted before its work began"
_WHY = {
    RunQuote.State.CANCELLED: "cancelled because of what it may cost",
    RunQuote.State.EXPIRED: "nobody answered the question about its cost",
    RunQuote.State.DROPPED: "ended before anybody answered the question about its cost",
}
State = RunQuote.State


@dataclass(frozen=True)
class Conclusion:
    """Whether the question still waits for an answer, and if the run doesn't begin, why."""

    waits: bool = False
    refusal: str = ""


@transaction.atomic
def conclude(run: TaskRun, now: datetime, *, is_last: bool) -> Conclusion:
    """Return what the run's workflow has to do, and end the run if it does not begin.

    With `is_last`, the workflow stops waiting, so a question without an answer expires.
    """
    locked, quote = _lock(run)
    if quote.state == State.ASKED and locked.state == TaskRun.State.QUEUED:
        if not is_last and quote.expires_at is not None and now < quote.expires_at:
            return Conclusion(waits=True)
        _move(quote, locked, State.EXPIRED)
    mark_heard(quote, now)
    if quote.state in (State.ACCEPTED, State.SMALLER):
        # After an operator reset it, a workflow asks again, perhaps about an answered run.
        return Conclusion()
    if quote.state == State.ASKED:
        _move(quote, locked, State.DROPPED)
    if locked.state not in TaskRun.FINAL:
        _end_run(locked, now, _WHY[State(quote.state)], quote.state)
    return Conclusion(refusal=_WHY[State(quote.state)])


def withdraw(workspace: SlackWorkspace, channel_id: str, ts: str, now: datetime) -> str | None:
    """End the run of a deleted message, if its question is open.

    If the message began its task, return the task's workflow, for the caller to cancel. Otherwise,
    make the workflow go on, and return None.
    """
    quote = (
        RunQuote.objects.filter(
            state=State.ASKED,
            run__message_ts=ts,
            run__task__workspace=workspace,
            run__task__channel_id=channel_id,
        )
        .select_related("run__task")
        .first()
    )
    if quote is None:
        return None
    with transaction.atomic():
        locked, quote = _lock(quote.run)
        if quote.state != State.ASKED or locked.state != TaskRun.State.QUEUED:
            return None
        _move(quote, locked, State.DROPPED)
        if _end_run(locked, now, DELETED, State.DROPPED):
            return locked.task.workflow_id
        transaction.on_commit(lambda: run_soon(TELL_WORKFLOW, str(locked.pk)))
    return None


def open_question(mention: Mention) -> RunQuote | None:
    """Return the open question about the work that the mention began, if there is one."""
    began = {"run__message_ts": mention.ts, "run__task__workflow_id": mention.workflow_id}
    return RunQuote.objects.filter(state=State.ASKED, **began).select_related("run").first()


def left_open() -> QuerySet[RunQuote]:
    """Return the open questions about runs that have ended, for example because of a stop."""
    return RunQuote.objects.filter(state=State.ASKED, run__state__in=TaskRun.FINAL).select_related(
        "run__task"
    )


@transaction.atomic
def drop(quote: RunQuote) -> None:
    """Close the question about a run that has ended."""
    locked, quote = _lock(quote.run)
    if quote.state == State.ASKED and locked.state in TaskRun.FINAL:
        _move(quote, locked, State.DROPPED)


def unheard() -> QuerySet[RunQuote]:
    """Return the answered questions whose workflow does not know the answer yet."""
    answers = [*RunQuote.ANSWERS, State.DROPPED]
    found = RunQuote.objects.filter(state__in=answers, heard_at=None)
    return found.select_related("run__task").order_by("made_at")


def mark_heard(quote: RunQuote, now: datetime) -> None:
    """Record that the workflow knows the answer, or has ended."""
    RunQuote.objects.filter(pk=quote.pk, heard_at=None).update(heard_at=now)


def show_outcome(quote: RunQuote, run: TaskRun) -> None:
    """Replace the question in the thread with its outcome."""
    asked = Notice.objects.filter(key=buttons.key_of(run.pk)).first()
    if asked is None:
        return
    if edits.revise(asked, _outcome(quote, run, asked.user_id)):
        notices.send_soon(asked)


def _outcome(quote: RunQuote, run: TaskRun, asked_user_id: str) -> str:
    match quote.state:
        case State.CANCELLED:
            return words.cancelled(quote.answered_by)
        case State.EXPIRED:
            return words.expired(asked_user_id, bot_name=settings.BOT_NAME)
        case State.DROPPED:
            return words.dropped()
    return words.accepted(quote.answered_by, exact(run.accepted_micro or 0))


def _lock(run: TaskRun) -> tuple[TaskRun, RunQuote]:
    """Lock the thread's task, the run and its quote, in this order."""
    task = CodingTask.objects.select_related("workspace").get(pk=run.task_id)
    if task.workspace is not None:
        lock_active_task(task.workspace, task.channel_id, task.thread_ts)
    locked = TaskRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run.pk)
    return locked, RunQuote.objects.select_for_update().get(run=run.pk)


def _move(quote: RunQuote, run: TaskRun, state: str) -> None:
    quote.state = state
    quote.save(update_fields=["state"])
    QUOTES.labels(state).inc()
    show_outcome(quote, run)


def _end_run(run: TaskRun, now: datetime, why: str, state: str) -> bool:
    """End a run that has not begun; return whether it was the first of its task, which ends too."""
    about = message_of(run)
    if isinstance(about, Mention) and about.workflow_id == run.task.workflow_id:
        stop_work(run.task, why)
        ended = Mention.State.FAILED if state == State.EXPIRED else Mention.State.STOPPED
        closing.close(about.pk, ended, why)
        return True
    TaskRun.objects.filter(pk=run.pk).update(
        state=TaskRun.State.STOPPED, error=why, finished_at=now
    )
    return False
