"""What is not said in a thread any more once its work was stopped.

The sender of a notice marks it as being sent before it looks whether the work was stopped. The stop
is committed before its own notice is sent, and that waits for notices being sent. So one of the two
always sees the other: after "stopped", nobody is told that the work paused, say.
"""

from datetime import datetime, timedelta

from coding_tasks.models import CodingTask
from workflows.models import Mention, Notice

Kind = Notice.Kind
_WITHHELD = (Kind.DENIAL, Kind.FAILURE, Kind.PICKER, Kind.NO_ACCESS, Kind.QUESTION)


def is_withheld(notice: Notice) -> bool:
    """Return whether the notice is about stopped work. An answer is posted: it was paid for."""
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
    """Return whether this notice of a stop has to wait for another one that is being sent.

    It waits `at_most` that long: the other sender may have died.
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
