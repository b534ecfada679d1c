"""Notices that are withheld once their work was stopped, and notices that wait for others.

A sender marks a notice as being sent before it checks whether the work was stopped. A stop is
committed before its own notice is sent, and that notice waits for those being sent. So one of the
two always sees the other. A thread that was told "stopped" is not told later that work has paused.

The offer to ask for credits waits for the denial that it follows.
"""

from datetime import datetime, timedelta

from coding_tasks.models import CodingTask
from workflows.models import Mention, Notice
from workflows.slack import posting

Kind = Notice.Kind
_WITHHELD = (
    Kind.DENIAL,
    Kind.FAILURE,
    Kind.PICKER,
    Kind.NO_ACCESS,
    Kind.QUESTION,
    Kind.QUOTE,
    Kind.DIFF,
    Kind.FILE,
    Kind.OFFER,
)


def is_withheld(notice: Notice) -> bool:
    """Return whether to withhold the notice. Answers are always sent, because they were paid."""
    if notice.kind not in _WITHHELD:
        return False
    if notice.kind == Kind.QUOTE and posting.is_posted(notice):
        return False  # the edit says that nothing is left to decide
    if notice.mention_id is not None:
        return Mention.objects.filter(pk=notice.mention_id, state=Mention.State.STOPPED).exists()
    tasks = CodingTask.objects.filter(
        workspace=notice.workspace_id, channel_id=notice.channel_id, thread_ts=notice.thread_ts
    )
    latest = tasks.order_by("-created_at").first()
    return latest is not None and latest.state == CodingTask.State.STOPPED


def has_to_wait(notice: Notice, now: datetime, at_most: timedelta) -> bool:
    """Return whether another notice has to be sent first.

    The notice of a stop waits no longer than `at_most`, because the other sender may have died. An
    offer waits until the denial is sent or given up.
    """
    if notice.kind == Kind.OFFER:
        return _denial_is_unsent(notice)
    if notice.kind != Kind.STOP or notice.created_at <= now - at_most:
        return False
    return Notice.objects.filter(
        workspace=notice.workspace_id,
        channel_id=notice.channel_id,
        thread_ts=notice.thread_ts,
        kind__in=_WITHHELD,
        state=Notice.State.SENDING,
        next_attempt_at__gt=now,
    ).exists()


def _denial_is_unsent(notice: Notice) -> bool:
    """Return whether a denial that was claimed before the notice is still to send."""
    denials = Notice.objects.filter(
        kind=Kind.DENIAL, mention=notice.mention_id, created_at__lte=notice.created_at
    )
    return notice.mention_id is not None and denials.filter(state__in=Notice.UNSENT).exists()
