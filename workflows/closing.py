"""Closing a mention and opening it again: its row, and the replies that came before its task.

Closing a mention locks the thread's active task first and the mention second. Recording a message
for either uses the same order.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from coding_tasks.models import CodingTask
from coding_tasks.threads import lock_active_task
from workflows.mention_types import (
    ANOTHERS_TASK,
    ASKED_FOR_CREDITS,
    HANDED_BACK,
    OUT_OF_CREDITS,
    workflow_id,
)
from workflows.models import ERASED, FollowUp, Mention


def conclude(mention: Mention, state: str, outcome: str) -> bool:
    """End a mention that is still `received`; return False if it has ended already."""
    return _close(mention, state, outcome, [Mention.State.RECEIVED])


def close(mention_id: UUID | str, state: str, outcome: str) -> bool:
    """Record how an open mention ended; return False if that was recorded already."""
    found = Mention.objects.filter(pk=mention_id).select_related("workspace")
    mention = found.defer("workspace__bot_token").first()
    return mention is not None and _close(mention, state, outcome, Mention.OPEN)


def end_new(mention: Mention, state: str, outcome: str) -> None:
    """End a mention in the transaction that records it, so that nobody ever sees it open.

    There are no replies to settle, because nobody could record one for it.
    """
    ending = _ended(state, outcome)
    Mention.objects.filter(pk=mention.pk).update(**ending)
    for name, value in ending.items():
        setattr(mention, name, value)


def _ended(state: str, outcome: str) -> dict[str, Any]:
    return {"state": state, "outcome": outcome[:200], "finished_at": timezone.now()}


@transaction.atomic
def _close(mention: Mention, state: str, outcome: str, those_in: Sequence[str]) -> bool:
    holder = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    found = Mention.objects.filter(pk=mention.pk, state__in=those_in)
    closed = found.update(**_ended(state, outcome))
    if closed:
        _settle_replies(mention, holder, outcome)
    return bool(closed)


@transaction.atomic
def close_joined(mention_id: UUID | str, outcome: str) -> bool:
    """Record that the mention joined the thread's task; return False if it ended in another way.

    If that task has already handed the mention back, leave it to the sweep, and return False.
    """
    found = Mention.objects.filter(pk=mention_id)
    mention = found.select_related("workspace").defer("workspace__bot_token").first()
    if mention is None:
        return False
    lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    locked = found.select_for_update().get()
    if locked.state in Mention.OPEN and locked.outcome == HANDED_BACK:
        hand_back(found)
        # This workflow was told of these replies. The next one must be told, too.
        known = FollowUp.objects.filter(
            workflow_id=mention.workflow_id, state=FollowUp.State.SIGNALLED
        )
        known.update(state=FollowUp.State.RECEIVED)
        return False
    return close(mention_id, Mention.State.FORWARDED, outcome)


@transaction.atomic
def close_as_anothers(mention_id: UUID | str) -> bool:
    """Record that the thread's task belongs to somebody else; return False if it ended otherwise.

    If the author has joined meanwhile, leave the mention to the sweep, and return False.
    """
    found = Mention.objects.filter(pk=mention_id)
    mention = found.select_related("workspace").defer("workspace__bot_token").first()
    if mention is None:
        return False
    holder = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    if holder is not None and holder.accepts(mention.user_id):
        hand_back(found.filter(state__in=Mention.OPEN))
        return False
    return close(mention_id, Mention.State.REFUSED, ANOTHERS_TASK)


def hand_back(mentions: QuerySet[Mention]) -> None:
    """Leave mentions whose task is gone to the sweep, which decides about them again."""
    mentions.update(
        state=Mention.State.RECEIVED, outcome=HANDED_BACK, finished_at=None, lease_until=None
    )


def reopen(mention: Mention) -> bool:
    """Let a mention that was refused for lack of credits be decided anew.

    Call it in a transaction. Return False if there is nothing to run any more: it was erased, or a
    later message of its author took it up.
    """
    refused = Mention.objects.filter(
        pk=mention.pk, state=Mention.State.REFUSED, outcome__startswith=OUT_OF_CREDITS
    ).exclude(text=ERASED)
    if not refused.select_for_update().exists():
        return False
    if Mention.objects.filter(takes_up=mention.pk).exists():
        return False
    refused.update(
        state=Mention.State.RECEIVED,
        outcome=ASKED_FOR_CREDITS,
        finished_at=None,
        lease_until=None,
    )
    return True


def _settle_replies(mention: Mention, holder: CodingTask | None, outcome: str) -> None:
    """Hand the replies that waited for the mention's task to the thread's task, or drop them.

    If the mention has a task of its own, that task handles them.
    """
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    waiting = FollowUp.objects.filter(workflow_id=own, state__in=FollowUp.WAITING)
    if holder is not None and holder.workflow_id == own:
        return
    if holder is not None and holder.accepts(mention.user_id):
        waiting.update(workflow_id=holder.workflow_id, state=FollowUp.State.RECEIVED)
    else:
        why = f"its mention made no task: {outcome}"[:200]
        waiting.update(state=FollowUp.State.DROPPED, outcome=why)
