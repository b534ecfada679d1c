"""Notices that are withheld once their work was stopped.

A sender marks a notice as being sent before it checks whether the work was stopped. A stop is
committed before its own notice is sent, and that notice waits for those being sent. So one of the
two always sees the other. A thread that was told "stopped" is not told later that work has paused.
"""

from datetime import datetime, timedelta

from coding_tasks.models import CodingTask
from workflows.models import Mention, Notice

Kind = Notice.Kind
_WITHHELD = (
    Kind.DENIAL,
    Kind.FAILURE,
    Kind.PICKER,
    Kind.NO_ACCESS,
    Kind.QUESTION,
    Kind.DIFF,
    Kind.OFFER,
)


def is_withheld(notice: Notice) -> bool:
    """Return whether to withhold the notice. Answers never are: they were paid for."""
    if notice.kind not in _WITHHELD:
        return False
    if notice.mention_id is not None:
        return Mention.objects.filter(pk=notice.mention_id, state=Mention.State.STOPPED).exists()
    tasks = CodingTask.objects.filter(
        workspace=notice.workspace_id, channel_id=notice.channel_id, thread_ts=notice.thread_ts
    )
    latest = tasks.order_by("-created_at").first()
    return latest is not None and latest.state == CodingTask.State.STOPPED


def has_to_wait(notice: Notice, now: datetime, at_most: timedelta) -> bool:
    """Return whether the notice of a stop has to wait for another notice that is being sent.

    It waits no longer than `at_most`, because the other sender may have died.
    """
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
