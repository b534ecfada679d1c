"""Replies that Slack told of before the mention that they follow.

What Slack could not deliver it delivers again: at once, then after a minute, then after five; what
was said meanwhile comes first. A reply that comes before its mention is recorded is no message for
anybody, and is not kept: most threads are none of ours. So whoever makes the task of a mention that
was heard late reads its thread, as far as Slack lets it.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import structlog
from django.db import transaction
from slack_sdk.web import SlackResponse

from coding_tasks.threads import lock_active_task
from workflows import posts
from workflows.models import FollowUp, Mention
from workflows.slack import client_for, failure_of

log = structlog.get_logger(__name__)

LATE = timedelta(seconds=10)
"""How long after it was written a mention is heard late.

Below are slow deliveries, clocks that differ, and what Slack delivers again at once, at most three
seconds after it tried: hardly anybody has replied by then. Above is what came again a minute later.
"""
_PAGE = 200
_MOST_PAGES = 3
_TIMEOUT = 5
"""Seconds for a page: the task waits for them all."""


def hear(mention: Mention) -> None:
    """Record what the author added before the mention was heard; a sweep tells its workflow.

    Only for the task that the author has in the thread. Calls Slack only if the mention was heard
    late. What Slack does not tell is lost, with a warning: the task does not depend on it.
    """
    if mention.received_at.timestamp() - float(mention.ts) < LATE.total_seconds():
        return
    try:
        for page in islice(_thread(mention), _MOST_PAGES):
            _record(mention, _replies(mention, page.get("messages") or ()))
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        log.warning(
            "replies may be lost: the thread of a mention that was heard late cannot be read",
            mention=str(mention.pk),
            error=failure.error,
        )


def _thread(mention: Mention) -> SlackResponse:
    """Return the pages of the thread from the mention on, each fetched when it is asked for."""
    return client_for(mention.workspace, _TIMEOUT).conversations_replies(
        channel=mention.channel_id, ts=mention.thread_ts, oldest=mention.ts, limit=_PAGE
    )


def _replies(mention: Mention, messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what its author wrote below the mention; what names the bot is a mention itself."""
    for message in messages:
        if (
            message.get("user") == mention.user_id
            and Decimal(message["ts"]) > Decimal(mention.ts)
            and posts.is_written_by_a_person(message)
            and mention.workspace.bot_user_id not in posts.tagged(posts.text_of(message))
        ):
            yield message


@transaction.atomic
def _record(mention: Mention, replies: Iterable[dict[str, Any]]) -> None:
    task = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    if task is None or task.owner_slack_user_id != mention.user_id:
        return
    for reply in replies:
        FollowUp.objects.get_or_create(
            workspace=mention.workspace,
            channel_id=mention.channel_id,
            ts=reply["ts"],
            defaults={
                "thread_ts": mention.thread_ts,
                "user_id": mention.user_id,
                "text": posts.text_of(reply),
                "addressed": False,
                "workflow_id": task.workflow_id,
            },
        )
