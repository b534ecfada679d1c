"""Closing a mention: its row, and the replies that came before it had a coding task.

Closing a mention locks the thread's active task first and the mention second. Recording a message
for either uses the same order.
"""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from coding_tasks.models import CodingTask
from coding_tasks.threads import lock_active_task
from workflows.mention_types import workflow_id
from workflows.models import FollowUp, Mention


def conclude(mention: Mention, state: str, outcome: str) -> bool:
    """End a mention that is still `received`; return False if it has ended already."""
    return close(mention.pk, state, outcome, those_in=[Mention.State.RECEIVED])


@transaction.atomic
def close(
    mention_id: UUID | str, state: str, outcome: str, *, those_in: Sequence[str] = Mention.OPEN
) -> bool:
    """Record how the mention ended; return False if that was recorded already."""
    mention = (
        Mention.objects.select_related("workspace")
        .defer("workspace__bot_token")
        .filter(pk=mention_id)
        .first()
    )
    if mention is None:
        return False
    holder = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    closed = Mention.objects.filter(pk=mention.pk, state__in=those_in).update(
        state=state, outcome=outcome[:200], finished_at=timezone.now()
    )
    if closed:
        _settle_replies(mention, holder, outcome)
    return bool(closed)


def _settle_replies(mention: Mention, holder: CodingTask | None, outcome: str) -> None:
    """Hand the replies that waited for the mention's task to the thread's task, or drop them.

    If the mention has a task of its own, that task handles them.
    """
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    waiting = FollowUp.objects.filter(workflow_id=own, state__in=FollowUp.WAITING)
    if holder is not None and holder.workflow_id == own:
        return
    if holder is not None and holder.owner_slack_user_id == mention.user_id:
        waiting.update(workflow_id=holder.workflow_id, state=FollowUp.State.RECEIVED)
    else:
        why = f"its mention made no task: {outcome}"[:200]
        waiting.update(state=FollowUp.State.DROPPED, outcome=why)
