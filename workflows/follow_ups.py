"""Replies in the thread of a task, or of a mention that will make one: its owner's alone count."""

from decimal import Decimal

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from coding_tasks import threads
from coding_tasks.models import CodingTask
from coding_tasks.threads import lock_active_task
from projects.models import Project
from workflows import client, closing, denials, notices
from workflows.mention_types import out_of_credits, workflow_id
from workflows.models import ERASED, FollowUp, Mention, ThreadReply
from workflows.requests import is_countermanded

log = structlog.get_logger(__name__)


def forward(mention: Mention, task: CodingTask, *, ask_gate: bool = True) -> bool:
    """Hand a mention in the task's thread to the task; False when the task has ended meanwhile.

    Another user's is refused, with one notice for each task and user. Without `ask_gate`
    the workflow asks it: an earlier attempt may have begun work that a denial would contradict.
    Raises `client.TemporalUnavailable` when the message is recorded but the workflow not yet told.
    """
    if mention.user_id != task.owner_slack_user_id:
        _refuse_stranger(mention, task)
        return True
    if ask_gate and (refusal := denials.refusal_for(mention, task.project)):
        denials.refuse(mention, refusal)
        return True
    with transaction.atomic():
        locked = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
        if locked is None or locked.pk != task.pk:
            return False
        outcome = f"follow-up of {locked.workflow_id}"
        if not closing.conclude(mention, Mention.State.FORWARDED, outcome):
            return True  # stopped meanwhile
        follow_up, _ = FollowUp.objects.update_or_create(
            workspace_id=mention.workspace_id,
            channel_id=mention.channel_id,
            ts=mention.ts,
            defaults={
                "thread_ts": mention.thread_ts,
                "user_id": mention.user_id,
                "text": mention.text,
                "addressed": True,
                "workflow_id": locked.workflow_id,
                "state": FollowUp.State.RECEIVED,
                "outcome": "",
            },
        )
    tell(follow_up)
    return True


def record(reply: FollowUp, project: Project) -> bool:
    """Keep an unsaved reply that does not mention the bot, once; whether it is now to be told.

    Only the owner's counts. Out of credits of the project, which pays for the thread's task, it is
    recorded as refused, and the thread told at most once.
    """
    refusal = denials.refusal_for(reply, project)
    with transaction.atomic():
        task = lock_active_task(reply.workspace, reply.channel_id, reply.thread_ts)
        if task is None or task.owner_slack_user_id != reply.user_id or is_known(reply):
            return False
        if is_countermanded(reply):  # by an order that found nothing to stop just now
            return False
        reply.workflow_id = task.workflow_id
        if refusal:
            reply.state = FollowUp.State.REFUSED
            reply.outcome = out_of_credits(refusal.reason)
        reply.save(force_insert=True)
        if refusal:
            notices.send_soon(denials.claim(reply, refusal))
    return not refusal


def record_early(reply: FollowUp) -> bool:
    """Keep an unsaved reply that came before its thread's task, once; whether it is now to be told.

    Only that of a mention's author counts, and only while the mention is open: it waits for the
    mention's task and begins nothing itself. The gate is not asked: the mention's own checks say
    whether there will be a task, and say so once.
    """
    if not _open_mentions(reply).exists():
        return False
    with transaction.atomic():
        locked = _open_mentions(reply).select_for_update().order_by("received_at")
        written = Decimal(reply.ts)
        mention = next((each for each in locked if Decimal(each.ts) < written), None)
        if mention is None or is_known(reply):
            return False
        reply.workflow_id = workflow_id(mention.team_id, mention.channel_id, mention.ts)
        reply.save(force_insert=True)
    return mention.state == Mention.State.STARTED


def to_tell() -> QuerySet[FollowUp]:
    """Return what workflows were not told of, without what waits for one that is not started."""
    unstarted = Mention.objects.filter(
        workspace=OuterRef("workspace"),
        channel_id=OuterRef("channel_id"),
        thread_ts=OuterRef("thread_ts"),
        user_id=OuterRef("user_id"),
        state=Mention.State.RECEIVED,
    )
    return FollowUp.objects.filter(~Exists(unstarted), state=FollowUp.State.RECEIVED)


def tell(follow_up: FollowUp) -> None:
    """Signal the follow-up to its workflow; twice is harmless. Raises `client.TemporalUnavailable`.

    If the workflow is gone, the thread is free for a new task, and a message that mentions the bot
    becomes a mention to start with. A message that waits for a mention's task goes on waiting.
    """
    try:
        client.signal_follow_up(follow_up)
    except client.WorkflowEnded:
        log.info("a follow-up came after its workflow", follow_up=str(follow_up.pk))
        if not _is_before_its_task(follow_up):
            _drop(follow_up)


def _is_before_its_task(follow_up: FollowUp) -> bool:
    workflow = {"workflow_id": follow_up.workflow_id}
    return (
        Mention.objects.filter(**workflow, state__in=Mention.OPEN).exists()
        and not CodingTask.objects.filter(**workflow).exists()
    )


@transaction.atomic
def _drop(follow_up: FollowUp) -> None:
    threads.abandon(follow_up.workflow_id)
    FollowUp.objects.filter(pk=follow_up.pk, state=FollowUp.State.RECEIVED).update(
        state=FollowUp.State.DROPPED, outcome="its task had ended"
    )
    if follow_up.addressed:
        begin_anew(follow_up)


def begin_anew(follow_up: FollowUp) -> None:
    """Have a mention that was forwarded in vain be decided about again, by the sweep.

    Not one that was erased: there is nothing to do for it.
    """
    Mention.objects.filter(
        workspace_id=follow_up.workspace_id,
        channel_id=follow_up.channel_id,
        ts=follow_up.ts,
        state=Mention.State.FORWARDED,
    ).exclude(text=ERASED).update(
        state=Mention.State.RECEIVED, outcome="", finished_at=None, lease_until=None
    )


def is_known(reply: FollowUp | ThreadReply) -> bool:
    """Return whether the reply was recorded as a follow-up, in whatever state."""
    post = {"workspace": reply.workspace_id, "channel_id": reply.channel_id, "ts": reply.ts}
    return FollowUp.objects.filter(**post).exists()


def _open_mentions(reply: FollowUp) -> QuerySet[Mention]:
    return Mention.objects.filter(
        workspace=reply.workspace,
        channel_id=reply.channel_id,
        thread_ts=reply.thread_ts,
        user_id=reply.user_id,
        state__in=Mention.OPEN,
    )


def _refuse_stranger(mention: Mention, task: CodingTask) -> None:
    with transaction.atomic():
        if closing.conclude(mention, Mention.State.REFUSED, "another user's task"):
            notices.send_soon(notices.claim_not_your_task(mention, task))
