"""Follow-ups: further messages for a task in its thread, or for a task that is to be made."""

from decimal import Decimal

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from coding_tasks import threads
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.threads import lock_active_task
from workflows import closing, denials, notices, participants
from workflows.mention_types import ANOTHERS_TASK, HANDED_BACK, out_of_credits, workflow_id
from workflows.models import ERASED, FollowUp, Mention, ThreadReply
from workflows.requests import is_stopped_later, texts_of
from workflows.temporal import client

log = structlog.get_logger(__name__)


def forward(mention: Mention, task: CodingTask, *, ask_gate: bool = True) -> bool:
    """Hand a mention in the task's thread to the task; return False if the task has ended.

    Only mentions by the task's owner and participants are taken; others are refused. Without
    `ask_gate` only the workflow asks the gate: an earlier attempt may have begun work that a denial
    would contradict. Raises `client.TemporalUnavailable` if the message was recorded but could not
    be signalled.
    """
    if not task.accepts(mention.user_id) and _refuse_stranger(mention, task):
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
            return True  # it was stopped meanwhile
        follow_up, _ = FollowUp.objects.update_or_create(
            workspace_id=mention.workspace_id,
            channel_id=mention.channel_id,
            ts=mention.ts,
            defaults={
                "thread_ts": mention.thread_ts,
                "user_id": mention.user_id,
                "text": mention.text or "\n\n".join(texts_of(mention)),
                "addressed": True,
                "workflow_id": locked.workflow_id,
                "state": FollowUp.State.RECEIVED,
                "outcome": "",
            },
        )
    signal(follow_up)
    return True


def record(reply: FollowUp, task: CodingTask) -> bool:
    """Save a reply to a task that does not mention the bot, once; return whether to signal it now.

    Only replies by the task's owner and participants are saved. If the project that pays for the
    task has no credits, the reply is saved as refused, and the thread is told at most once. But if
    the task waits for credits, so does the reply: the thread was told that it goes on after a
    top-up.
    """
    waits = _waits_for_credits(task)  # asked before the gate: a top-up may come between
    refusal = denials.refusal_for(reply, task.project)
    with transaction.atomic():
        locked = lock_active_task(reply.workspace, reply.channel_id, reply.thread_ts)
        if locked is None or is_known(reply):
            return False
        if not locked.accepts_reply(reply.user_id, reply.ts):
            return False
        if is_stopped_later(reply):  # an order to stop came just now and found nothing to stop
            return False
        reply.workflow_id = locked.workflow_id
        if refusal and (waits or _waits_for_credits(locked)):
            refusal = None  # the workflow asks the gate again when it is the reply's turn
        if refusal:
            reply.state = FollowUp.State.REFUSED
            reply.outcome = out_of_credits(refusal.reason)
        reply.save(force_insert=True)
        if refusal:
            notices.send_soon(denials.claim(reply, refusal))
    return not refusal


def record_early(reply: FollowUp) -> bool:
    """Save a reply that came before its thread's task, once; return whether to signal it now.

    Only replies by the author of an open mention are saved. They wait for the mention's task. The
    gate isn't asked, because the mention's own checks decide whether there will be a task.
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


def unsignalled() -> QuerySet[FollowUp]:
    """Return the follow-ups still to be signalled to a workflow that was started."""
    unstarted = Mention.objects.filter(
        workspace=OuterRef("workspace"),
        channel_id=OuterRef("channel_id"),
        thread_ts=OuterRef("thread_ts"),
        user_id=OuterRef("user_id"),
        state=Mention.State.RECEIVED,
    )
    return FollowUp.objects.filter(~Exists(unstarted), state=FollowUp.State.RECEIVED)


def signal(follow_up: FollowUp) -> None:
    """Signal the follow-up to its workflow. Signalling it twice does no harm.

    If the workflow is gone, its thread becomes free, and a follow-up that mentions the bot is
    decided about again as a mention. A follow-up whose task does not exist yet keeps waiting.
    Raises `client.TemporalUnavailable`.
    """
    try:
        client.signal_follow_up(follow_up)
    except client.WorkflowEnded:
        log.info("a follow-up came after its workflow had ended", follow_up=str(follow_up.pk))
        if not _waits_for_its_task(follow_up):
            _drop(follow_up)


def _waits_for_its_task(follow_up: FollowUp) -> bool:
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
        restart_mention(follow_up)


def restart_mention(follow_up: FollowUp) -> None:
    """Leave the mention of a dropped follow-up to the sweep, to be decided about again.

    Erased mentions stay as they are. If the mention's own workflow is about to close it as
    forwarded, that workflow leaves it to the sweep instead (`closing.close_joined`).
    """
    mention = Mention.objects.filter(
        workspace_id=follow_up.workspace_id, channel_id=follow_up.channel_id, ts=follow_up.ts
    ).exclude(text=ERASED)
    mention.filter(state=Mention.State.STARTED).update(outcome=HANDED_BACK)
    closing.hand_back(mention.filter(state=Mention.State.FORWARDED))


def is_known(reply: FollowUp | ThreadReply) -> bool:
    """Return whether the reply was recorded as a follow-up, in any state."""
    post = {"workspace": reply.workspace_id, "channel_id": reply.channel_id, "ts": reply.ts}
    return FollowUp.objects.filter(**post).exists()


def _waits_for_credits(task: CodingTask) -> bool:
    return task.runs.filter(state=TaskRun.State.PAUSED).exists()


def _open_mentions(reply: FollowUp) -> QuerySet[Mention]:
    return Mention.objects.filter(
        workspace=reply.workspace,
        channel_id=reply.channel_id,
        thread_ts=reply.thread_ts,
        user_id=reply.user_id,
        state__in=Mention.OPEN,
    )


def _refuse_stranger(mention: Mention, task: CodingTask) -> bool:
    """Refuse the mention, and say whose task it is; return False if its author joined just now."""
    with transaction.atomic():
        # Letting the author join locks the task too, so it finds this refusal.
        locked = lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
        if locked is None or locked.pk != task.pk or locked.accepts(mention.user_id):
            return False
        if closing.conclude(mention, Mention.State.REFUSED, ANOTHERS_TASK):
            notices.send_soon(participants.claim_not_your_task(mention, locked))
    return True
