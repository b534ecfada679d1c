"""What becomes of a recorded mention: refused, handed to the thread's running task, or started.

Decided once, by whoever holds the mention's lease: the webhook that recorded it, a redelivery or
the sweep. A mention that nobody could finish stays `received` for the next of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from coding_tasks.models import CodingTask
from coding_tasks.threads import active_task
from workflows import client, closing, follow_ups
from workflows.door import denial, refuse
from workflows.mention_types import workflow_id
from workflows.models import Mention

LEASE = timedelta(seconds=15)
"""Longer than a decision takes with every dependency at its time limit."""


def admit(mention: Mention) -> None:
    """Decide about the mention, unless somebody else is at it or it is decided.

    Raises `client.TemporalUnavailable`; the mention then stays `received`.
    """
    # An earlier attempt may have died between starting the workflow and saying so: a denial from
    # here could contradict it, so the workflow's own gate decides then.
    first_attempt = mention.lease_until is None
    with _leased(mention) as mine:
        if mine:
            _decide(mention, at_the_door=first_attempt)


def waiting(now: datetime) -> QuerySet[Mention]:
    """Return the mentions that nobody is at, those first that were tried longest ago."""
    return (
        Mention.objects.filter(_unleased(now), state=Mention.State.RECEIVED)
        .select_related("workspace__project")
        .defer("workspace__bot_token")
        .order_by(F("lease_until").asc(nulls_first=True), "received_at")
    )


def _unleased(now: datetime) -> Q:
    return Q(lease_until=None) | Q(lease_until__lte=now)


@contextmanager
def _leased(mention: Mention) -> Iterator[bool]:
    now = timezone.now()
    row = Mention.objects.filter(pk=mention.pk, state=Mention.State.RECEIVED)
    if not row.filter(_unleased(now)).update(lease_until=now + LEASE):
        yield False
        return
    try:
        yield True
    except Exception:
        row.update(lease_until=timezone.now())
        raise


def _decide(mention: Mention, *, at_the_door: bool) -> None:
    if not mention.workspace.is_active:
        closing.conclude(mention, Mention.State.FAILED, "the app was uninstalled")
    elif (task := _task_of_another(mention)) and follow_ups.forward(
        mention, task, at_the_door=at_the_door
    ):
        pass
    elif at_the_door and (denied := denial(mention, mention.workspace.project, to_start=True)):
        refuse(mention, denied)
    else:
        client.start_mention(mention)


def _task_of_another(mention: Mention) -> CodingTask | None:
    """Return the active task of the mention's thread, unless the mention itself began it."""
    if mention.thread_ts == mention.ts:
        return None
    task = active_task(mention.workspace, mention.channel_id, mention.thread_ts)
    own = workflow_id(mention.team_id, mention.channel_id, mention.ts)
    return task if task is not None and task.workflow_id != own else None
