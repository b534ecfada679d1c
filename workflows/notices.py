"""Messages that the bot sends a thread at most once: claimed as rows, then sent.

A webhook, an activity and a sweep may all want to send the same message. The row's unique key
allows one message, and a lease on the row allows one sender at a time. Slack has no idempotent
post. So each message carries its notice's id as metadata, and after an attempt whose outcome is
unknown, the sender searches the thread for the message before it posts again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from django.db import transaction
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from billing.credits import display
from billing.reports.usage import given_back_to_task_runs, usage_of_run
from coding_tasks.models import RunChange, TaskRun
from projects.hints import run_soon
from workflows import wording
from workflows.messages import answers, edits, thread_order
from workflows.metrics import NOTICES
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import InThread
from workflows.slack import pauses, posting
from workflows.slack.block_kit import Block
from workflows.slack.client import Failure, Meaning, client_for, failure_of
from workflows.stopping import withheld_notices

log = structlog.get_logger(__name__)

DELIVER_NOTICE = "workflows.tasks.deliver_notice"
LEASE = timedelta(seconds=45)
"""Longer than one attempt takes, so an expired lease means that its holder died."""
_ONE_MESSAGE = timedelta(seconds=40)
"""Longer than the calls that post one message take, all at their time limit."""
GIVE_UP_AFTER = timedelta(hours=6)
"""The age after which a notice is not tried again, if it had enough attempts."""
ATTEMPTS_AT_LEAST = 8
"""Attempts that a notice gets at any age: our processes may have been down for hours."""
LONGEST_BACKOFF = timedelta(minutes=5)
LONGEST_WAIT = timedelta(days=1)
"""The age after which a notice for a workspace that takes no calls is given up untried."""
_A_MOMENT = timedelta(seconds=1)
PUBLISH_KEY = "publish:"
"""The beginning of the key of a question about a change. The run's id follows."""


class Addressed(InThread, Protocol):
    """Anything with a thread and a person: a mention, a follow-up, an order to stop."""

    @property
    def user_id(self) -> str:
        """Who wrote or ordered it."""


# --- Claiming ------------------------------------------------------------------------------------
def claim(
    key: str,
    kind: str,
    about: Addressed,
    text: str,
    *,
    blocks: Sequence[Block] = (),
    user_id: str | None = None,
    only_to_user: bool = False,
    cost_micro: int | None = None,
) -> Notice:
    """Return the notice for this key, creating it if needed. The caller must send it.

    It goes to the thread of `about`. If Slack refuses it there, or with `only_to_user`, it goes to
    `user_id` alone, by default the author of `about`. `cost_micro` is what the text or the blocks
    say that a run used.
    """
    destination = Notice.Destination.EPHEMERAL if only_to_user else Notice.Destination.THREAD
    notice, _ = Notice.objects.get_or_create(
        key=key,
        defaults={
            "kind": kind,
            "workspace_id": about.workspace_id,
            "mention": about if isinstance(about, Mention) else None,
            "channel_id": about.channel_id,
            "thread_ts": about.thread_ts,
            "user_id": user_id or about.user_id,
            "destination": destination,
            "text": text,
            "blocks": list(blocks),
            "cost_micro": cost_micro,
        },
    )
    return notice


def answer_key(run: TaskRun) -> str:
    """Return the key of the notice with a run's answer."""
    return f"{answers.ANSWER_KEY}{run.pk}"


@transaction.atomic
def claim_answer(run: TaskRun, about: Mention | FollowUp) -> Notice:
    """Return the notice with a run's answer to a message."""
    fresh = TaskRun.objects.select_for_update().get(pk=run.pk)  # it may have been erased since
    sentences = [*change_sentences(fresh), *given_back_sentences([run])]
    text = "\n\n".join([wording.answer(fresh.answer), *sentences])
    micro = usage_of_run(run.pk)
    blocks = answers.blocks_of(fresh, text, micro)
    return claim(answer_key(run), Notice.Kind.ANSWER, about, text, blocks=blocks, cost_micro=micro)


def change_sentences(run: TaskRun) -> list[str]:
    """Return what to say about the change that the run made, or nothing."""
    change = RunChange.objects.filter(run=run).select_related("run__task__branch").first()
    if change is None or run.answer == ERASED:
        return []
    made = wording.change_made(
        files=change.files,
        added=change.added,
        removed=change.removed,
        branch=change.branch,
        pushed=change.pushed_at is not None,
    )
    pull_request = run.task.branch.pull_request
    return [wording.change_published(made, pull_request=pull_request, note=change.note)]


def given_back_sentences(runs: Iterable[TaskRun]) -> list[str]:
    """Return the sentence about credits that were given back for these runs, if there were any."""
    micro = sum(given_back_to_task_runs(run.pk for run in runs).values())
    return [wording.given_back(display(micro))] if micro else []


# --- Sending -------------------------------------------------------------------------------------
def send_soon(notice: Notice) -> None:
    """Have a worker send the notice once the transaction is committed."""
    transaction.on_commit(lambda: run_soon(DELIVER_NOTICE, str(notice.pk)))


def deliver(notice: Notice) -> None:
    """Send the notice if it is due and no other sender has it. Failures of Slack are not raised.

    A notice that could not be sent is due again later, for the sweep. If Slack refuses it, it is
    sent in another way (`workflows.slack.posting`). It is given up if Slack refuses every way, or
    if its work was stopped or its text was erased meanwhile. After a denial, the offer that waited
    for it is sent, too.
    """
    _deliver(notice)
    if notice.kind == Notice.Kind.DENIAL and notice.mention_id is not None:
        offers = Notice.objects.filter(kind=Notice.Kind.OFFER, mention=notice.mention_id)
        for offer in offers.filter(state=Notice.State.PENDING):
            _deliver(offer)


def _deliver(notice: Notice) -> None:
    now = timezone.now()
    taken = _take(notice, now)
    if taken is None or (not taken.notice.withdrawn and _is_over(taken, now)):
        return
    methods = posting.methods_of(taken.notice, searches=taken.outcome_unknown)
    pause = pauses.find(notice.workspace_id, methods, now)
    if pause.until is not None:
        _postpone(taken, now, pause.until)
        return
    if _replaces_progress(taken, now):
        _put_back(taken, now + _A_MOMENT)
        return
    try:
        message_ts = _send(client_for(taken.notice.workspace), taken)
    except _LeaseLost:
        return
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        now = timezone.now()
        pauses.note_failure(notice.workspace_id, failure, now)
        if pause.is_trial and not failure.is_silence:
            pauses.note_answer(notice.workspace_id)
        _keep_failure(taken, failure, now)
    else:
        if pause.is_trial:
            pauses.note_answer(notice.workspace_id)
        _keep_success(taken.notice, message_ts, timezone.now())


def due(now: datetime) -> QuerySet[Notice]:
    """Return the notices to send now, the longest due first."""
    return Notice.objects.filter(state__in=Notice.UNSENT, next_attempt_at__lte=now).order_by(
        "next_attempt_at"
    )


def next_due(now: datetime, most: int) -> list[Notice]:
    """Return at most this many notices to send now, taking turns between workspaces."""
    place = Window(RowNumber(), partition_by="workspace_id", order_by="next_attempt_at")
    return list(due(now).annotate(place=place).order_by("place", "next_attempt_at")[:most])


@dataclass
class _Attempt:
    """A leased notice, and whether its last message may have reached Slack."""

    notice: Notice
    outcome_unknown: bool


class _LeaseLost(Exception):
    """Another sender took over the notice."""


def _take(notice: Notice, now: datetime) -> _Attempt | None:
    mine = Notice.objects.filter(pk=notice.pk, next_attempt_at__lte=now)
    for state in (Notice.State.PENDING, Notice.State.SENDING):
        if mine.filter(state=state).update(
            state=Notice.State.SENDING,
            next_attempt_at=now + LEASE,
            attempts=F("attempts") + 1,
        ):
            # The bot token is loaded only when Slack is called, because decrypting it may fail.
            rows = Notice.objects.select_related("workspace").defer("workspace__bot_token")
            return _Attempt(rows.get(pk=notice.pk), state == Notice.State.SENDING)
    return None


def _postpone(taken: _Attempt, now: datetime, until: datetime) -> None:
    """Leave a notice for later, because its workspace takes no calls at present."""
    notice = taken.notice
    if notice.created_at <= now - LONGEST_WAIT:
        _give_up(notice, "no answer from Slack")
    else:
        _put_back(taken, until)


def _put_back(taken: _Attempt, until: datetime) -> None:
    """Make the notice due later, without counting an attempt."""
    unsent = Notice.State.SENDING if taken.outcome_unknown else Notice.State.PENDING
    _keep(taken.notice, state=unsent, next_attempt_at=until, attempts=F("attempts") - 1)


def _is_over(taken: _Attempt, now: datetime) -> bool:
    """Return whether there is nothing to send now. The notice is then given up or due later."""
    notice = taken.notice
    if notice.text == ERASED:
        _give_up(notice, "erased")
    elif withheld_notices.is_withheld(notice):
        _give_up(notice, "stopped")
    elif posting.lacks_its_file(notice):
        _give_up(notice, "erased")
    elif notice.kind == Notice.Kind.PROGRESS and _comes_too_late(notice):
        notice.withdrawn = True
        if taken.outcome_unknown:  # it may be in the thread
            _keep(notice, withdrawn=True)
            return False
        _keep(notice, state=Notice.State.WITHDRAWN, withdrawn=True)
    elif withheld_notices.has_to_wait(notice, now, LEASE) or thread_order.waits_for_earlier(
        notice, now, LEASE
    ):
        _put_back(taken, now + _A_MOMENT)
    elif taken.outcome_unknown and notice.destination == Notice.Destination.EPHEMERAL:
        _give_up(notice, "outcome_unknown")  # no search finds an ephemeral message
    else:
        return False
    return True


def _comes_too_late(progress: Notice) -> bool:
    """Return whether the run ended before its progress was shown for the first time."""
    return not posting.is_posted(progress) and not thread_order.is_at_work(progress)


def _replaces_progress(taken: _Attempt, now: datetime) -> bool:
    """Delete the progress messages that the notice replaces; return whether to wait for that.

    If Slack refuses to delete it, or if it takes too long, the notice doesn't wait.
    """
    ended = thread_order.ended_progress(taken.notice)
    for progress in ended:
        edits.withdraw(progress)
        deliver(progress)
    return thread_order.waits_for_deletion(taken.notice, ended, now)


def _send(client: WebClient, attempt: _Attempt) -> str:
    """Send the notice in the first way that Slack accepts; return the `ts` of its first message.

    If it was sent before, edit its message, or delete it if it was withdrawn.
    """
    notice = attempt.notice
    if notice.withdrawn:
        return _delete(client, attempt)
    if posting.is_posted(notice):
        return _edit(client, attempt)
    notice.destination = posting.first_way(notice)
    while True:
        try:
            return _send_messages(client, attempt)
        except Exception as error:
            refusal = failure_of(error)
            if refusal is None or not refusal.is_refusal:
                raise
            # If the search is refused, try elsewhere: posting here again could say it twice.
            elsewhere = attempt.outcome_unknown or refusal.meaning is Meaning.REFUSED_HERE
            way = posting.next_way(notice, elsewhere=elsewhere)
            if way is None:
                raise
            log.info(
                "slack refused a notice", notice=str(notice.pk), error=refusal.error, next=str(way)
            )
            attempt.outcome_unknown = False
            _renew(notice, destination=way, messages_sent=0, message_ts="", error=refusal.error)


def _edit(client: WebClient, attempt: _Attempt) -> str:
    notice = attempt.notice
    try:
        posting.edit(client, notice)
    except SlackApiError as error:
        if notice.kind != Notice.Kind.PROGRESS or not posting.is_gone(error):
            raise
        # Somebody deleted the message, so the progress is shown in a new one.
        attempt.outcome_unknown = False
        _renew(notice, message_ts="", sent_at=None)
        return _send_messages(client, attempt)
    return notice.message_ts


def _delete(client: WebClient, attempt: _Attempt) -> str:
    """Delete the message. If Slack forbids that, edit it to say only that the work has ended."""
    notice = attempt.notice
    if not notice.message_ts:
        message_ts = posting.find(client, notice, posting.messages_of(notice)[0])
        if message_ts is None:
            return ""
        _renew(notice, message_ts=message_ts)
    try:
        posting.delete(client, notice)
    except SlackApiError as error:
        refusal = failure_of(error)
        if posting.is_gone(error):
            return ""
        if refusal is None or refusal.meaning is not Meaning.REFUSED:
            raise
        notice.text, notice.blocks = wording.work_has_ended(), []
        posting.edit(client, notice)
    return notice.message_ts


def _send_messages(client: WebClient, attempt: _Attempt) -> str:
    notice = attempt.notice
    messages = posting.messages_of(notice)
    for number in range(notice.messages_sent, len(messages)):
        message_ts = None
        if attempt.outcome_unknown:
            message_ts = posting.find(client, notice, messages[number])
            attempt.outcome_unknown = False
            _renew(notice)  # the search may have outlasted the lease, and another sender taken over
        if message_ts is None:
            _have_lease_for_a_message(notice)
            message_ts = posting.post(client, notice, messages[number])
        first_ts = notice.message_ts or message_ts
        if number + 1 < len(messages):
            _renew(notice, messages_sent=number + 1, message_ts=first_ts)
    return first_ts


def _keep_failure(attempt: _Attempt, failure: Failure, now: datetime) -> None:
    notice = attempt.notice
    outcome_unknown = attempt.outcome_unknown or failure.meaning is Meaning.UNKNOWN
    ephemeral = notice.destination == Notice.Destination.EPHEMERAL
    is_change = notice.withdrawn or posting.is_posted(notice)
    if is_change and (failure.is_permanent or _had_enough_attempts(notice, now)):
        _keep(notice, state=_after_refused_change(notice), error=failure.error)
        return
    if failure.is_permanent or (outcome_unknown and ephemeral) or _had_enough_attempts(notice, now):
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


def _after_refused_change(notice: Notice) -> str:
    """Return the state of a notice whose message can be neither edited nor deleted."""
    if notice.withdrawn:
        return Notice.State.WITHDRAWN
    is_progress = notice.kind == Notice.Kind.PROGRESS
    return Notice.State.GIVEN_UP if is_progress else Notice.State.SENT


def _keep_success(notice: Notice, message_ts: str, now: datetime) -> None:
    """Record what Slack shows. If that is out of date already, the notice is due again."""
    if notice.withdrawn:
        _keep(notice, state=Notice.State.WITHDRAWN)
        return
    fields: dict[str, Any] = {
        "destination": notice.destination,
        "message_ts": message_ts,
        "sent_at": notice.sent_at or now,
        "edited_at": now,
    }
    if notice.sent_at is None:
        NOTICES.labels(notice.kind, notice.destination, Notice.State.SENT).inc()
        if notice.cost_micro is not None and posting.is_editable(notice):
            fields["cost_due_at"] = now + answers.FIRST_CHECK
    mine = _mine(notice)
    if mine.filter(revision=notice.revision, withdrawn=False).update(
        state=Notice.State.SENT, **fields
    ):
        return
    fields |= {"state": Notice.State.PENDING, "attempts": 0}
    if mine.filter(withdrawn=False).update(next_attempt_at=now + edits.EVERY, **fields):
        return
    if mine.update(next_attempt_at=now, **fields):
        deliver(Notice.objects.get(pk=notice.pk))


def _had_enough_attempts(notice: Notice, now: datetime) -> bool:
    return now - notice.created_at > GIVE_UP_AFTER and notice.attempts >= ATTEMPTS_AT_LEAST


def _give_up(notice: Notice, error: str) -> None:
    log.warning("a notice was given up", notice=str(notice.pk), kind=notice.kind, error=error)
    kept = Notice.Destination.PAGE if notice.kind == Notice.Kind.ANSWER else notice.destination
    NOTICES.labels(notice.kind, kept, Notice.State.GIVEN_UP).inc()
    _keep(notice, state=Notice.State.GIVEN_UP, destination=kept, error=error)


def _keep(notice: Notice, **fields: Any) -> bool:
    """Update the notice if the lease is still ours; return whether it was."""
    return bool(_mine(notice).update(**fields))


def _mine(notice: Notice) -> QuerySet[Notice]:
    return Notice.objects.filter(
        pk=notice.pk, state=Notice.State.SENDING, next_attempt_at=notice.next_attempt_at
    )


def _have_lease_for_a_message(notice: Notice) -> None:
    """Renew the lease if it might end before Slack answers: another sender would post, too."""
    if timezone.now() > notice.next_attempt_at - _ONE_MESSAGE:
        _renew(notice)


def _renew(notice: Notice, **fields: Any) -> None:
    """Update the notice and renew its lease. Raise `_LeaseLost` if another sender has it."""
    fields["next_attempt_at"] = timezone.now() + LEASE
    if not _keep(notice, **fields):
        raise _LeaseLost
    for name, value in fields.items():
        setattr(notice, name, value)
