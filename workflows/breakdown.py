"""Ending what a workflow that ended too early leaves: rows, and a word in the thread.

A workflow that fails or is cancelled does it by an activity. One that is terminated, by an operator
in Temporal's pages, cannot: a sweep finds it.
"""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from coding_tasks import threads
from coding_tasks.models import CodingTask, TaskRun
from workflows import notices, wording
from workflows.models import FollowUp, Mention, Notice

_OPEN = [Mention.State.RECEIVED, Mention.State.STARTED]
_WAITING = [FollowUp.State.RECEIVED, FollowUp.State.SIGNALLED]


def close_mention(mention_id: UUID | str, state: str, outcome: str) -> bool:
    """Write how the mention ended, unless that is written already; tell whether it was not."""
    return bool(
        Mention.objects.filter(pk=mention_id, state__in=_OPEN).update(
            state=state, outcome=outcome[:200], finished_at=timezone.now()
        )
    )


def end(mention: Mention, workflow_id: str, state: str, outcome: str) -> Notice:
    """End the mention of a workflow and its task; return the notice that says so."""
    close_mention(mention.pk, state, outcome)
    threads.abandon(workflow_id)
    FollowUp.objects.filter(workflow_id=workflow_id, state__in=_WAITING).update(
        state=FollowUp.State.DROPPED
    )
    text = wording.failed(mention.user_id)
    return notices.claim(f"failed:{mention.pk}", Notice.Kind.FAILURE, mention, text)


def left_behind(workflow_ids: Sequence[str]) -> QuerySet[Mention]:
    """Return the mentions that, or whose tasks, look as if these workflows were still running."""
    active = CodingTask.objects.filter(
        workflow_id=OuterRef("workflow_id"), state=CodingTask.State.ACTIVE
    )
    return Mention.objects.filter(
        Q(state=Mention.State.STARTED) | Exists(active), workflow_id__in=workflow_ids
    )


@transaction.atomic
def clear_up(workflow_id: str) -> None:
    """End what a workflow left that will never go on. The thread is told if it waited for it."""
    mention = Mention.objects.select_for_update().filter(workflow_id=workflow_id).first()
    if mention is None:
        return
    somebody_waits = (
        mention.state in _OPEN
        or FollowUp.objects.filter(workflow_id=workflow_id, state__in=_WAITING).exists()
        or TaskRun.objects.filter(
            task__workflow_id=workflow_id, state__in=TaskRun.UNFINISHED
        ).exists()
    )
    if somebody_waits:
        outcome = "its workflow was terminated"
        notices.send_soon(end(mention, workflow_id, Mention.State.FAILED, outcome))
    else:
        threads.abandon(workflow_id)
