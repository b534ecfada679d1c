"""Make the quote of a run before it begins, and decide whether to ask its requester first."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from coding_tasks.models import CodingTask, TaskRun
from quota import gate
from quota.resources import MICRO
from workflows import notices
from workflows.metrics import QUOTES
from workflows.models import CostConfirmation, CreditRequest, Mention, Notice, RunQuote
from workflows.quotes import buttons, words
from workflows.quotes.history import comparable
from workflows.quotes.ranges import Range
from workflows.requests import message_of

WITHOUT_HISTORY_MICRO = 40 * MICRO
"""What is offered if there is no history and every run asks. Less can be too little for an agent's
first calls, because the most that a call can cost is reserved."""
State = RunQuote.State


def quote(run: TaskRun, now: datetime, patience: timedelta) -> RunQuote:
    """Return the run's quote, making it if needed. If it asks, this claims the question's notice.

    `patience` is how long the question waits for an answer.
    """
    made = RunQuote.objects.filter(run=run).first()
    return made or _make(run, now, patience)


def _make(run: TaskRun, now: datetime, patience: timedelta) -> RunQuote:
    task = run.task
    model = task.model_to_use() if task.needs_sandbox else task.model or settings.AGENT_MODEL
    history, found = comparable(run, model, now)
    headroom = None
    with suppress(gate.QuotaUnknown):  # the quote doesn't need it
        headroom = gate.headroom(task.project, task.resource, distinct_id=run.distinct_id)
    offer = _offer(task, found, None if headroom is None else headroom.left_micro)
    approved = _approved_micro(run) if offer else None
    if approved is not None:
        offer = None
    with transaction.atomic():
        made, is_new = RunQuote.objects.get_or_create(
            run=run,
            defaults={
                "history": history,
                "runs_compared": found.runs if found else 0,
                "low_micro": found.low if found else None,
                "high_micro": found.high if found else None,
                "left_micro": headroom.left_micro if headroom else None,
                "left_of": headroom.reason if headroom else "",
                "offered_micro": offer.micro if offer else None,
                "smaller_micro": offer.smaller_micro if offer else None,
                "state": State.ASKED if offer else State.SHOWN,
                "made_at": now,
                "expires_at": now + patience if offer else None,
            },
        )
        if is_new:
            TaskRun.objects.filter(pk=run.pk).update(model=model, accepted_micro=approved)
            claim_question(made, run)
            QUOTES.labels(made.state).inc()
    return made


def claim_question(made: RunQuote, run: TaskRun) -> Notice | None:
    """Return the notice with the quote's question, creating it if needed. None if it asks nothing.

    The caller must send it.
    """
    if made.offered_micro is None:
        return None
    about = message_of(run)
    text = words.question(about.user_id, made)
    blocks = buttons.question_blocks(text, made)
    return notices.claim(buttons.key_of(run.pk), Notice.Kind.QUOTE, about, text, blocks=blocks)


@dataclass(frozen=True)
class _Offer:
    """The numbers to choose from. There is no smaller one if the first is small enough."""

    micro: int
    smaller_micro: int | None


def _offer(task: CodingTask, found: Range | None, left_micro: int | None) -> _Offer | None:
    """Return the numbers to offer, or None if the run may begin without asking.

    A project without a threshold never asks. Without a history, what a run costs may be above any
    threshold. A run that may cost more than is left could end half-way, so it asks too.
    """
    above = CostConfirmation.objects.filter(project=task.project_id).first()
    threshold = above.ask_above_micro if above else None
    if threshold is None:
        return None
    is_near_limit = found is not None and left_micro is not None and found.high > left_micro
    if found is not None and found.high <= threshold and not is_near_limit:
        return None
    wanted = found.high if found else threshold or WITHOUT_HISTORY_MICRO
    most = whole_credits(wanted)
    if left_micro is not None and 0 < left_micro < most:
        most = left_micro // MICRO * MICRO or left_micro
    median = whole_credits(found.median) if found else most
    smaller = median if median < most else most // 2 // MICRO * MICRO
    return _Offer(most, smaller or None)


def _approved_micro(run: TaskRun) -> int | None:
    """Return what was approved for this run after a denial. Asking once more would only delay it.

    A larger grant is for the team's other work too, so this run gets at most the suggested amount.
    """
    about = message_of(run)
    requests = CreditRequest.objects.filter(state=CreditRequest.State.RESUMED)
    request = requests.filter(mention=about).first() if isinstance(about, Mention) else None
    if request is None or request.granted_micro is None:
        return None
    return min(request.granted_micro, request.suggested_micro)


def whole_credits(micro: int) -> int:
    """Return the amount rounded up to whole credits, at least one."""
    return max(-(-micro // MICRO), 1) * MICRO
