"""Messages that the bot owes a thread at most once: claimed as rows, then sent by whoever is first.

A webhook, an activity and a sweep may all want to say the same; the unique key lets one row exist,
and a lease on the row lets one sender try at a time. Slack has no idempotent post, so after an
attempt whose outcome is unknown the thread is searched for the message, which carries the notice's
id as metadata, before anything is posted again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet, Subquery
from django.utils import timezone
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from coding_tasks.models import CodingTask
from projects.hints import hasten
from quota.gate import Verdict
from workflows import wording
from workflows.models import FollowUp, Mention, Notice
from workflows.slack import Failure, Meaning, client_for, failure_of

log = structlog.get_logger(__name__)

DELIVER_NOTICE = "workflows.tasks.deliver_notice"
METADATA_TYPE = "tollgate_notice"
LEASE = timedelta(seconds=45)
"""Longer than the calls of one attempt take: an expired lease means that its holder died."""
GIVE_UP_AFTER = timedelta(hours=6)
"""The age of a notice after which a failed attempt is not repeated."""
LONGEST_BACKOFF = timedelta(minutes=5)

_CLOCK_SKEW = timedelta(minutes=10)
_PAGE = 200
# A person's id names a direct message to post to, and nothing that could be read.
_NO_SUCH_THREAD = {"thread_not_found", "message_not_found", "channel_not_found"}


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
    """Return the notice of this key, written now unless it exists. Somebody has to send it.

    It goes to the thread of `about`, or if the thread refuses it, or `only_to_user`, to `user_id`
    (the author of `about` unless given) alone.
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


def claim_denial(about: Mention | FollowUp, verdict: Verdict) -> Notice:
    """Return the one denial of a message that was refused for want of credits.

    A reply that does not mention the bot shares the one its thread has had since the task began:
    the conversation knows, and every further remark would repeat it.
    """
    key = f"denial:{about.pk}"
    if isinstance(about, FollowUp) and not about.addressed:
        key = f"denial:{about.workflow_id}"
        if said := _denial_of_task(about):
            return said
    return claim(key, Notice.Kind.DENIAL, about, denial_text(verdict))


def denial_of(mention: Mention) -> Notice | None:
    """Return the denial that was claimed for a mention: what was refused once is not begun."""
    return Notice.objects.filter(key=f"denial:{mention.pk}").first()


def denial_text(verdict: Verdict) -> str:
    """Return the denial for a verdict, under the names this installation goes by."""
    return wording.denial(
        verdict.reason,
        verdict.resets_at,
        bot_name=settings.BOT_NAME,
        billing_url=settings.BILLING_URL,
        time_zone=verdict.time_zone,
        cap=verdict.cap,
    )


def _denial_of_task(about: FollowUp) -> Notice | None:
    task = CodingTask.objects.filter(workflow_id=about.workflow_id)
    return Notice.objects.filter(
        kind=Notice.Kind.DENIAL,
        workspace_id=about.workspace_id,
        channel_id=about.channel_id,
        thread_ts=about.thread_ts,
        created_at__gte=Subquery(task.values("created_at")),
    ).first()


# --- Sending -------------------------------------------------------------------------------------
def send_soon(notice: Notice) -> None:
    """Have a worker send the notice once the transaction is committed."""
    transaction.on_commit(lambda: hasten(DELIVER_NOTICE, str(notice.pk)))


def deliver(notice: Notice) -> None:
    """Send the notice if it is due and nobody else is at it. A failure of Slack never raises.

    What could not be sent falls due again later, for the sweep; what the thread refuses is shown
    to the user alone; what is refused there too is given up.
    """
    taken = _take(notice, timezone.now())
    if taken is None:
        return
    notice, outcome_unknown = taken
    if outcome_unknown and notice.destination == Notice.Destination.EPHEMERAL:
        _give_up(notice, "outcome_unknown")  # no search finds an ephemeral message
        return
    try:
        client = client_for(notice.workspace)
        message_ts = _find(client, notice) if outcome_unknown else None
        outcome_unknown = False
        message_ts = message_ts or _send(client, notice)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        _keep_failure(notice, failure, outcome_unknown, timezone.now())
    else:
        _keep(notice, state=Notice.State.SENT, message_ts=message_ts, sent_at=timezone.now())


def due(now: datetime) -> QuerySet[Notice]:
    """Return the notices to send now, those first that wait longest."""
    unsent = [Notice.State.PENDING, Notice.State.SENDING]
    return Notice.objects.filter(state__in=unsent, next_attempt_at__lte=now).order_by(
        "next_attempt_at"
    )


def _take(notice: Notice, now: datetime) -> tuple[Notice, bool] | None:
    """Lease the notice; return it, and whether an earlier attempt's outcome is unknown."""
    mine = Notice.objects.filter(pk=notice.pk, next_attempt_at__lte=now)
    for state in (Notice.State.PENDING, Notice.State.SENDING):
        if mine.filter(state=state).update(
            state=Notice.State.SENDING,
            next_attempt_at=now + LEASE,
            attempts=F("attempts") + 1,
        ):
            # The token is read only when Slack is called: it may be one that cannot be decrypted.
            rows = Notice.objects.select_related("workspace").defer("workspace__bot_token")
            return rows.get(pk=notice.pk), state == Notice.State.SENDING
    return None


def _find(client: WebClient, notice: Notice) -> str | None:
    """Return the `ts` of the notice's message if an earlier attempt did post it."""
    where: dict[str, Any] = {"channel": notice.channel_id}
    if notice.thread_ts:
        where["ts"] = notice.thread_ts
    read = client.conversations_replies if notice.thread_ts else client.conversations_history
    try:
        pages = read(
            **where,
            oldest=f"{(notice.created_at - _CLOCK_SKEW).timestamp():.6f}",
            include_all_metadata=True,
            limit=_PAGE,
        )
        for page in pages:
            for message in page.get("messages") or ():
                if _is(notice, message.get("metadata")):
                    return str(message["ts"])
    except SlackApiError as error:
        if error.response.get("error") not in _NO_SUCH_THREAD:
            raise
    return None


def _is(notice: Notice, metadata: dict[str, Any] | None) -> bool:
    return bool(
        metadata
        and metadata.get("event_type") == METADATA_TYPE
        and (metadata.get("event_payload") or {}).get("notice") == str(notice.pk)
    )


def _send(client: WebClient, notice: Notice) -> str:
    """Post in the thread, or where the thread refuses, to the user alone; return the `ts`."""
    if notice.destination == Notice.Destination.THREAD:
        try:
            return _post(client, notice)
        except SlackApiError as error:
            refusal = failure_of(error)
            if refusal is None or refusal.meaning is not Meaning.REFUSED or not notice.user_id:
                raise
            log.info("a thread refused a notice", notice=str(notice.pk), error=refusal.error)
            _keep(notice, destination=Notice.Destination.EPHEMERAL, error=refusal.error)
            notice.destination = Notice.Destination.EPHEMERAL
    shown = client.chat_postEphemeral(
        channel=notice.channel_id,
        user=notice.user_id,
        thread_ts=notice.thread_ts,
        text=notice.text,
        blocks=notice.blocks or None,
    )
    return str(shown["message_ts"])


def _post(client: WebClient, notice: Notice) -> str:
    posted = client.chat_postMessage(
        channel=notice.channel_id,
        thread_ts=notice.thread_ts or None,
        text=notice.text,
        blocks=notice.blocks or None,
        metadata={
            "event_type": METADATA_TYPE,
            "event_payload": {"notice": str(notice.pk)},
        },
        unfurl_links=False,
        unfurl_media=False,
    )
    return str(posted["ts"])


def _keep_failure(notice: Notice, failure: Failure, outcome_unknown: bool, now: datetime) -> None:
    outcome_unknown = outcome_unknown or failure.meaning is Meaning.UNKNOWN
    ephemeral = notice.destination == Notice.Destination.EPHEMERAL
    if (
        failure.meaning in (Meaning.REFUSED, Meaning.DISCONNECTED)
        or (outcome_unknown and ephemeral)
        or now - notice.created_at > GIVE_UP_AFTER
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


def _give_up(notice: Notice, error: str) -> None:
    log.warning("a notice was given up", notice=str(notice.pk), error=error)
    _keep(notice, state=Notice.State.GIVEN_UP, error=error)


def _keep(notice: Notice, **fields: Any) -> None:
    """Write to the notice while the lease is ours; whoever took over knows better."""
    Notice.objects.filter(
        pk=notice.pk, state=Notice.State.SENDING, next_attempt_at=notice.next_attempt_at
    ).update(**fields)
