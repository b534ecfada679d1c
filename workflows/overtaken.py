"""Replies that Slack told of before the mention that they follow.

What Slack could not deliver it delivers again, a minute later or five; what was said meanwhile
comes first. A reply that comes before its mention is recorded is no message for anybody, and is
not kept: most threads are none of ours. So whoever makes the task of a mention that was heard late
reads its thread.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from coding_tasks.threads import lock_active_task
from workflows import posts
from workflows.models import FollowUp, Mention
from workflows.slack import client_for

AT_ONCE = timedelta(seconds=1)
"""How soon a mention is heard that no reply can have overtaken: nobody writes one faster."""
_MOST = 100


def hear(mention: Mention) -> None:
    """Record what the author added before the mention was heard; a sweep tells its workflow.

    Only for the task that the author has in the thread. Calls Slack, and raises what that raises,
    only if the mention was heard late.
    """
    if mention.received_at.timestamp() - float(mention.ts) < AT_ONCE.total_seconds():
        return
    thread = client_for(mention.workspace).conversations_replies(
        channel=mention.channel_id, ts=mention.thread_ts, oldest=mention.ts, limit=_MOST
    )
    found = list(_replies(mention, thread.get("messages") or ()))
    if not found:
        return
    with transaction.atomic():
        task = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
        if task is None or task.owner_slack_user_id != mention.user_id:
            return
        for reply in found:
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


def _replies(mention: Mention, messages: Any) -> Iterator[dict[str, Any]]:
    """Yield what its author wrote below the mention; what names the bot is a mention itself."""
    for message in messages:
        if (
            message.get("user") == mention.user_id
            and Decimal(message["ts"]) > Decimal(mention.ts)
            and posts.is_written_by_a_person(message)
            and mention.workspace.bot_user_id not in posts.tagged(posts.text_of(message))
        ):
            yield message
