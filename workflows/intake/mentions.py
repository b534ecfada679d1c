"""Decide about a recorded mention: refuse it, forward it, start its workflow or ask what to do.

The webhook that recorded the mention, a redelivery or a sweep decides once, under a lease on the
mention. If none of them can finish, the mention stays `received` for the next one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from coding_tasks.models import CodingTask
from coding_tasks.threads import active_task
from workflows import closing, denials, notices, wording
from workflows.credit_requests import resuming
from workflows.intake import follow_ups, replies, stop_orders
from workflows.intake.deferral import left_to_a_sweep
from workflows.mention_types import workflow_id
from workflows.models import Mention, Notice
from workflows.requests import is_stop, is_stopped_later, requests_before, texts_of
from workflows.temporal import client

LEASE = timedelta(seconds=15)
"""Longer than a decision takes with every dependency at its time limit."""


def admit(mention: Mention) -> None:
    """Decide about the mention, unless it is decided or another process is deciding.

    Raises `client.TemporalUnavailable`; the mention then stays `received`.
    """
    with _leased(mention) as lease:
        if lease is not None:
            # An earlier attempt may have died after it started the workflow. A denial from here
            # could contradict that workflow, so its own gate decides instead.
            _decide(mention, ask_gate=lease.is_first)


def admit_or_keep(mention: Mention) -> None:
    """Decide about the mention now, or leave it to the sweep. Never raises."""
    if mention.state == Mention.State.RECEIVED:
        with left_to_a_sweep("a mention", mention=str(mention.pk)):
            admit(mention)


def decide_replies(mention: Mention) -> None:
    """Decide about the author's replies to a mention that was refused as it was recorded.

    Never raises. Call it after the commit, because replies recorded until then found no mention.
    """
    with left_to_a_sweep("replies", mention=str(mention.pk)):
        for each in replies.decide_for(mention):
            admit(each)


def undecided(now: datetime) -> QuerySet[Mention]:
    """Return the undecided mentions without a lease, those tried longest ago first."""
    return (
        Mention.objects.filter(_unleased(now), state=Mention.State.RECEIVED)
        .select_related("workspace__project")
        .defer("workspace__bot_token")
        .order_by(F("lease_until").asc(nulls_first=True), "received_at")
    )


def _unleased(now: datetime) -> Q:
    return Q(lease_until=None) | Q(lease_until__lte=now)


@dataclass(frozen=True)
class _Lease:
    """The right to decide about a mention."""

    is_first: bool


@contextmanager
def _leased(mention: Mention) -> Iterator[_Lease | None]:
    """Take a lease on the mention; yield None if it is decided or leased.

    `is_first` is read from the row, because another process may have tried since the mention was
    loaded.
    """
    now = timezone.now()
    row = Mention.objects.filter(pk=mention.pk, state=Mention.State.RECEIVED)
    is_first = bool(row.filter(lease_until=None).update(lease_until=now + LEASE))
    if not is_first and not row.filter(lease_until__lte=now).update(lease_until=now + LEASE):
        yield None
        return
    try:
        yield _Lease(is_first)
    except Exception:
        row.update(lease_until=timezone.now())
        raise


def _decide(mention: Mention, *, ask_gate: bool) -> None:
    if not mention.workspace.is_active:
        closing.conclude(mention, Mention.State.FAILED, "the app was uninstalled")
    elif is_stop(mention.text):
        resuming.drop(requests_before(mention))
        stop_orders.obey(mention)
    else:
        earlier = replies.decide_for(mention)
        _decide_request(mention, ask_gate=ask_gate)
        for each in earlier + replies.decide_for(mention):
            admit(each)


def _decide_request(mention: Mention, *, ask_gate: bool) -> None:
    task = _task_of_another(mention)
    if task is None:
        replies.go_on(mention)
        replies.take_up_earlier(mention)
    if is_stopped_later(mention):
        closing.conclude(mention, Mention.State.STOPPED, "stopped before it began")
    elif task and _has_no_text(mention) and task.accepts(mention.user_id):
        _ask(mention)
    elif task and follow_ups.forward(mention, task, ask_gate=ask_gate):
        pass
    elif ask_gate and (refusal := denials.refusal_for(mention, mention.project, to_start=True)):
        denials.refuse(mention, refusal)
    elif _has_no_text(mention):
        _ask(mention)
    else:
        client.start_mention(mention)


def _has_no_text(mention: Mention) -> bool:
    return not mention.repeats_id and not texts_of(mention)


def _ask(mention: Mention) -> None:
    """End a mention without a text by asking what to do, unless a reply already says so."""
    with transaction.atomic():
        if not closing.conclude(mention, Mention.State.ASKED, "it had no text"):
            return
        if not replies.has_followed(mention):
            words = wording.what_to_do(mention.user_id)
            key = f"question:{mention.pk}"
            notices.send_soon(notices.claim(key, Notice.Kind.QUESTION, mention, words))


def _task_of_another(mention: Mention) -> CodingTask | None:
    """Return the active task of the mention's thread, unless the mention itself began it."""
    if not mention.is_reply:
        return None
    task = active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    return task if task is not None and task.workflow_id != own else None
