"""Finding threads: their keys, and the threads that a message is in."""

from typing import NamedTuple, TypeVar

from django.db.models import Q, QuerySet

from coding_tasks.models import CodingTask
from console.threads.search import Message
from workflows.models import FollowUp, Mention

_Message = TypeVar("_Message", Mention, FollowUp)

MAX_MESSAGES = 200
"""How many messages of a user or a thread are read, newest first."""


class ThreadKey(NamedTuple):
    """Identifies a thread: the workspace's row, the channel and the ts of the root message."""

    workspace_id: int
    channel_id: str
    thread_ts: str


def find_threads(message: Message) -> list[ThreadKey]:
    """Return the threads a message is in: one per workspace, so a shared channel has several."""
    ts = Q(ts=message.ts) | Q(thread_ts__in=[message.ts, message.thread_ts or message.ts])
    of_task = Q(thread_ts__in=[message.ts, message.thread_ts or message.ts])
    keys: set[ThreadKey] = set()
    for rows, wanted in (
        (Mention.objects, ts),
        (FollowUp.objects, ts),
        (CodingTask.objects, of_task),
    ):
        found = rows.filter(wanted, channel_id=message.channel_id).order_by()
        names = found.values_list("workspace_id", "channel_id", "thread_ts").distinct()
        keys.update(ThreadKey(*name) for name in names)
    return sorted(keys)


def messages_in(rows: QuerySet[_Message]) -> QuerySet[_Message]:
    """Return mentions or follow-ups with their workspaces, newest first."""
    found = rows.select_related("workspace__project__organization")
    return found.defer("workspace__bot_token").order_by("-received_at")


def key_of(message: Mention | FollowUp) -> ThreadKey:
    """Return the key of the thread that a message is in."""
    return ThreadKey(message.workspace_id, message.channel_id, message.thread_ts)
