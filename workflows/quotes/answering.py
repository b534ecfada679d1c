"""Handle clicks on the question about a run's cost. The first valid click decides."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from coding_tasks.models import TaskRun
from projects.hints import run_soon
from projects.models import SlackWorkspace
from workflows import notices
from workflows.credit_requests.deciding import may_decide
from workflows.metrics import QUOTES
from workflows.models import Notice, RunQuote
from workflows.quotes import words
from workflows.quotes.ending import TELL_WORKFLOW, show_outcome
from workflows.requests import message_of

State = RunQuote.State


@transaction.atomic
def answer(
    workspace: SlackWorkspace, run_id: UUID, user_id: str, wanted: str, now: datetime
) -> None:
    """Record the answer, whose number becomes the run's cap, and make the workflow go on.

    Only the requester and people who may approve credits can answer. Others, and those who come too
    late, get one message that only they see. A click that repeats the answer changes nothing.
    """
    runs = TaskRun.objects.select_for_update(of=("self",)).select_related("task")
    run = runs.filter(pk=run_id, task__workspace=workspace).first()
    quote = RunQuote.objects.select_for_update().filter(run=run_id).first()
    if run is None or quote is None or quote.offered_micro is None:
        return
    owner = run.asked_by
    if user_id != owner and not may_decide(workspace, user_id):
        _tell(run, user_id, "not-yours", words.not_yours(user_id, owner_id=owner))
        return
    if quote.state == wanted and quote.answered_by == user_id:
        return
    ended = _ended(quote, run, now)
    if ended is not None:
        _tell(run, user_id, ended, words.too_late(user_id, ended))
        return
    micro = {
        State.ACCEPTED: quote.offered_micro,
        State.SMALLER: quote.smaller_micro,
        State.CANCELLED: None,
    }[State(wanted)]
    if micro is None and wanted != State.CANCELLED:
        return
    quote.state, quote.answered_by, quote.answered_at = wanted, user_id, now
    quote.save(update_fields=["state", "answered_by", "answered_at"])
    TaskRun.objects.filter(pk=run.pk).update(accepted_micro=micro)
    run.accepted_micro = micro
    QUOTES.labels(wanted).inc()
    show_outcome(quote, run)
    transaction.on_commit(lambda: run_soon(TELL_WORKFLOW, str(run.pk)))


def _ended(quote: RunQuote, run: TaskRun, now: datetime) -> str | None:
    """Return the state that says why no answer counts any more, or None if one still counts."""
    if quote.state != State.ASKED:
        return quote.state
    if run.state != TaskRun.State.QUEUED:
        return State.DROPPED
    return State.EXPIRED if quote.expires_at is None or now >= quote.expires_at else None


def _tell(run: TaskRun, user_id: str, why: str, text: str) -> None:
    told = notices.claim(
        f"quote-{why}:{run.pk}:{user_id}",
        Notice.Kind.PICKER_REFUSAL,
        message_of(run),
        text,
        user_id=user_id,
        only_to_user=True,
    )
    notices.send_soon(told)
