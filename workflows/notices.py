"""Messages that the bot owes a thread at most once: claimed as rows, then sent.

A webhook, an activity and a sweep may all want to say the same. The unique key allows one row, and
a lease on the row allows one sender at a time. Slack has no idempotent post. So after an attempt
whose outcome is unknown, the thread is searched for the message before anything is posted again:
each message carries its notice's id as metadata.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from slack_sdk import WebClient

from coding_tasks.models import CodingTask, TaskRun
from projects.hints import hasten
from workflows import wording
from workflows.metrics import NOTICES
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.slack import posting
from workflows.slack.client import Failure, Meaning, client_for, failure_of
from workflows.stopping import stopped_work

log = structlog.get_logger(__name__)

DELIVER_NOTICE = "workflows.tasks.deliver_notice"
LEASE = timedelta(seconds=45)
"""Longer than the calls of one attempt take: an expired lease means that its holder died."""
GIVE_UP_AFTER = timedelta(hours=6)
"""The age of a notice after which a failed attempt is not repeated."""
ATTEMPTS_AT_LEAST = 8
"""How often a notice is tried whatever its age: nothing of ours may have run for hours."""
LONGEST_BACKOFF = timedelta(minutes=5)
_A_MOMENT = timedelta(seconds=1)


# --- Claiming ------------------------------------------------------------------------------------
def claim(
    key: str,
    kind: str,
    about: Mention | FollowUp,
    text: str,
    *,
    blocks: Sequence[dict[str, Any]] = (),
    user_id: str | None = None,
    only_to_user: bool = False,
) -> Notice:
    """Return the notice for this key, creating it if needed. The caller must send it.

    It goes to the thread of `about`. If the thread refuses it, or with `only_to_user`, it goes to
    `user_id` alone (by default the author of `about`).
    """
    shown = Notice.Destination.EPHEMERAL if only_to_user else Notice.Destination.THREAD
    notice, _ = Notice.objects.get_or_create(
        key=key,
        defaults={
            "kind": kind,
            "workspace_id": about.workspace_id,
            "mention": about if isinstance(about, Mention) else None,
            "channel_id": about.channel_id,
            "thread_ts": about.thread_ts,
            "user_id": user_id or about.user_id,
            "destination": shown,
            "text": text,
            "blocks": list(blocks),
        },
    )
    return notice


def answer_key(run: TaskRun) -> str:
    """Return the key of the notice with a run's answer."""
    return f"answer:{run.pk}"


@transaction.atomic
def claim_answer(run: TaskRun, about: Mention | FollowUp) -> Notice:
    """Return the notice with a run's answer to a message."""
    kept = TaskRun.objects.select_for_update().get(pk=run.pk)  # it may have been erased since
    return claim(answer_key(run), Notice.Kind.ANSWER, about, wording.answer(kept.answer))


def claim_not_your_task(about: Mention, task: CodingTask) -> Notice:
    """Return the notice that a task belongs to somebody else: one for each task and user."""
    text = wording.not_your_task(
        about.user_id, owner_id=task.owner_slack_user_id, bot_name=settings.BOT_NAME
    )
    key = f"not-your-task:{task.pk}:{about.user_id}"
    return claim(key, Notice.Kind.NOT_YOUR_TASK, about, text)


# --- Sending -------------------------------------------------------------------------------------
def send_soon(notice: Notice) -> None:
    """Have a worker send the notice once the transaction is committed."""
    transaction.on_commit(lambda: hasten(DELIVER_NOTICE, str(notice.pk)))


def deliver(notice: Notice) -> None:
    """Send the notice if it is due and no other sender has it. A failure of Slack never raises.

    A notice that could not be sent falls due again later, for the sweep. One that Slack refuses is
    sent in another way (`workflows.slack.posting`). A notice is given up if Slack refuses every
    way, or if its work was stopped or its words were erased meanwhile.
    """
    now = timezone.now()
    taken = _take(notice, now)
    if taken is None:
        return
    if taken.notice.text == ERASED:
        _give_up(taken.notice, "erased")
        return
    if stopped_work.is_withheld(taken.notice):
        _give_up(taken.notice, "stopped")
        return
    if stopped_work.has_to_wait(taken.notice, now, LEASE):
        unsent = Notice.State.SENDING if taken.outcome_unknown else Notice.State.PENDING
        _keep(taken.notice, state=unsent, next_attempt_at=now + _A_MOMENT)
        return
    if taken.outcome_unknown and taken.notice.destination == Notice.Destination.EPHEMERAL:
        _give_up(taken.notice, "outcome_unknown")  # no search finds an ephemeral message
        return
    try:
        message_ts = _send(client_for(taken.notice.workspace), taken)
    except _LeaseLost:
        return
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        _keep_failure(taken, failure, timezone.now())
    else:
        NOTICES.labels(taken.notice.kind, taken.notice.destination, Notice.State.SENT).inc()
        _keep(
            taken.notice,
            state=Notice.State.SENT,
            destination=taken.notice.destination,
            message_ts=message_ts,
            sent_at=timezone.now(),
        )


def due(now: datetime) -> QuerySet[Notice]:
    """Return the notices to send now, those first that wait longest."""
    unsent = [Notice.State.PENDING, Notice.State.SENDING]
    return Notice.objects.filter(state__in=unsent, next_attempt_at__lte=now).order_by(
        "next_attempt_at"
    )


@dataclass
class _Attempt:
    """A leased notice, and whether the message sent last may have reached Slack."""

    notice: Notice
    outcome_unknown: bool


class _LeaseLost(Exception):
    """Somebody else took over the notice."""


def _take(notice: Notice, now: datetime) -> _Attempt | None:
    mine = Notice.objects.filter(pk=notice.pk, next_attempt_at__lte=now)
    for state in (Notice.State.PENDING, Notice.State.SENDING):
        if mine.filter(state=state).update(
            state=Notice.State.SENDING,
            next_attempt_at=now + LEASE,
            attempts=F("attempts") + 1,
        ):
            # The token is read only when Slack is called: it may be one that cannot be decrypted.
            rows = Notice.objects.select_related("workspace").defer("workspace__bot_token")
            return _Attempt(rows.get(pk=notice.pk), state == Notice.State.SENDING)
    return None


def _send(client: WebClient, attempt: _Attempt) -> str:
    """Send the notice in the first way that Slack accepts; return the `ts`."""
    notice = attempt.notice
    notice.destination = posting.first_way(notice)
    while True:
        try:
            return _send_messages(client, attempt)
        except Exception as error:
            refusal = failure_of(error)
            if refusal is None or not refusal.is_refusal:
                raise
            # A place that cannot be searched gets no second attempt.
            elsewhere = attempt.outcome_unknown or refusal.meaning is Meaning.REFUSED_HERE
            way = posting.next_way(notice, elsewhere=elsewhere)
            if way is None:
                raise
            log.info(
                "slack refused a notice", notice=str(notice.pk), error=refusal.error, next=str(way)
            )
            attempt.outcome_unknown = False
            _renew(notice, destination=way, messages_sent=0, message_ts="", error=refusal.error)


def _send_messages(client: WebClient, attempt: _Attempt) -> str:
    notice = attempt.notice
    messages = posting.messages_of(notice)
    for number in range(notice.messages_sent, len(messages)):
        message_ts = None
        if attempt.outcome_unknown:
            message_ts = posting.find(client, notice, messages[number])
            attempt.outcome_unknown = False
            _renew(notice)  # a search may outlast the lease: whoever took over would post as well
        if message_ts is None:
            message_ts = posting.post(client, notice, messages[number])
        first_ts = notice.message_ts or message_ts
        if number + 1 < len(messages):
            _renew(notice, messages_sent=number + 1, message_ts=first_ts)
    return first_ts


def _keep_failure(attempt: _Attempt, failure: Failure, now: datetime) -> None:
    notice = attempt.notice
    outcome_unknown = attempt.outcome_unknown or failure.meaning is Meaning.UNKNOWN
    ephemeral = notice.destination == Notice.Destination.EPHEMERAL
    if (
        failure.is_permanent
        or (outcome_unknown and ephemeral)
        or _was_tried_long_enough(notice, now)
    ):
        _give_up(notice, failure.error)
        return
    backoff = timedelta(seconds=2 ** min(notice.attempts, 10))
    wait = (
        timedelta(seconds=failure.retry_after)
        if failure.retry_after is not None
        else min(backoff, LONGEST_BACKOFF)
    )
    _keep(
        notice,
        state=Notice.State.SENDING if outcome_unknown else Notice.State.PENDING,
        next_attempt_at=now + wait,
        error=failure.error,
    )


def _was_tried_long_enough(notice: Notice, now: datetime) -> bool:
    return now - notice.created_at > GIVE_UP_AFTER and notice.attempts >= ATTEMPTS_AT_LEAST


def _give_up(notice: Notice, error: str) -> None:
    log.warning("a notice was given up", notice=str(notice.pk), kind=notice.kind, error=error)
    kept = Notice.Destination.PAGE if notice.kind == Notice.Kind.ANSWER else notice.destination
    NOTICES.labels(notice.kind, kept, Notice.State.GIVEN_UP).inc()
    _keep(notice, state=Notice.State.GIVEN_UP, destination=kept, error=error)


def _keep(notice: Notice, **fields: Any) -> bool:
    """Write to the notice while the lease is ours; another sender may have taken over."""
    mine = Notice.objects.filter(
        pk=notice.pk, state=Notice.State.SENDING, next_attempt_at=notice.next_attempt_at
    )
    return bool(mine.update(**fields))


def _renew(notice: Notice, **fields: Any) -> None:
    """Write to the notice and renew its lease. Raises `_LeaseLost`."""
    fields["next_attempt_at"] = timezone.now() + LEASE
    if not _keep(notice, **fields):
        raise _LeaseLost
    for name, value in fields.items():
        setattr(notice, name, value)
