"""Record mentions. Some are refused in the transaction that records them.

A mention that begins a thread and lacks credits ends at once: no other process can see it before,
so it needs no lease, and one commit instead of three. Every other mention is recorded first and
then decided about (`workflows.intake.mentions`).
"""

from django.conf import settings
from django.db import transaction

from coding_tasks.models import CodingTask
from quota.gate import Verdict
from workflows import closing, denials, notices, wording
from workflows.intake import mentions
from workflows.mention_types import out_of_credits
from workflows.models import Mention, Notice, ThreadReply
from workflows.requests import is_stop, of_thread

_OUTSIDER = "the author is of another organization"


def record(mention: Mention) -> Mention:
    """Return the row of an unsaved mention, creating it if needed. It may be refused already."""
    verdict = _refusal_of(mention)
    with transaction.atomic():
        recorded, is_new = _row_of(mention)
        if is_new and verdict is not None and _is_alone(recorded):
            notices.send_soon(denials.claim(recorded, verdict))
            closing.end_new(recorded, Mention.State.REFUSED, out_of_credits(verdict.reason))
    if is_new and recorded.state == Mention.State.REFUSED:
        mentions.decide_replies(recorded)
    return recorded


@transaction.atomic
def record_outsiders(mention: Mention) -> Mention:
    """Return the row of an unsaved mention that is refused because of its author's organization."""
    recorded, is_new = _row_of(mention)
    if is_new:
        words = wording.no_access_for_outsiders(mention.user_id, bot_name=settings.BOT_NAME)
        key = f"no-access:{recorded.pk}"
        notices.send_soon(notices.claim(key, Notice.Kind.NO_ACCESS, recorded, words))
        closing.end_new(recorded, Mention.State.REFUSED, _OUTSIDER)
    return recorded


def _refusal_of(mention: Mention) -> Verdict | None:
    """Return the verdict that refuses the mention at once, or None if that is decided later."""
    if mention.is_reply or is_stop(mention.text):
        return None
    return denials.refusal_for(mention, mention.project, to_start=True)


def _is_alone(mention: Mention) -> bool:
    """Return whether the thread has no replies, no other requests and no task."""
    others = of_thread(mention).exclude(pk=mention.pk).values("ts")
    replies, tasks = (
        model.objects.filter(
            workspace=mention.workspace_id,
            channel_id=mention.channel_id,
            thread_ts=mention.thread_ts,
        ).values("thread_ts")
        for model in (ThreadReply, CodingTask)
    )
    return not others.union(replies, tasks).exists()


def _row_of(mention: Mention) -> tuple[Mention, bool]:
    """Return the row of an unsaved mention, and whether it is new."""
    recorded, is_new = Mention.objects.get_or_create(
        workspace=mention.workspace,
        channel_id=mention.channel_id,
        ts=mention.ts,
        defaults={
            "team_id": mention.team_id,
            "thread_ts": mention.thread_ts,
            "user_id": mention.user_id,
            "text": mention.text,
            "event_id": mention.event_id,
        },
    )
    recorded.workspace = mention.workspace
    return recorded, is_new
