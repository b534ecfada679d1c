"""Which message of a thread comes first, and which progress messages another one replaces."""

from datetime import datetime, timedelta

from django.db.models import QuerySet

from coding_tasks.models import TaskRun
from workflows.models import Notice
from workflows.slack import posting

PROGRESS_KEY = "progress:"
"""What the key of a notice with progress begins with. The run's id follows."""
_LONGEST_PROGRESS_WAIT = timedelta(seconds=5)
State = Notice.State


def waits_for_earlier(notice: Notice, now: datetime, at_most: timedelta) -> bool:
    """Return whether an earlier message has to be in the thread first.

    The notice waits no longer than `at_most`: Slack may take it even if it refuses the earlier one.
    Progress messages and ephemeral messages don't wait, and other messages don't wait for them.
    """
    if not _has_turn(notice) or notice.created_at <= now - at_most:
        return False
    unsent = _of_thread(notice).filter(state__in=Notice.UNSENT, sent_at=None)
    earlier = unsent.filter(created_at__lt=notice.created_at).exclude(kind=Notice.Kind.PROGRESS)
    return earlier.exclude(destination=Notice.Destination.EPHEMERAL).exists()


def ended_progress(notice: Notice) -> list[Notice]:
    """Return the progress messages in the notice's thread whose runs no longer work.

    The notice replaces them, so that a thread never shows a run as working beside the answer.
    """
    if notice.kind == Notice.Kind.PROGRESS or posting.is_posted(notice) or not notice.thread_ts:
        return []
    progress = _of_thread(notice).filter(kind=Notice.Kind.PROGRESS).exclude(state=State.WITHDRAWN)
    return [shown for shown in progress if not is_at_work(shown)]


def waits_for_deletion(notice: Notice, progress: list[Notice], now: datetime) -> bool:
    """Return whether progress is being posted or deleted just now, and the notice can wait."""
    if not progress or notice.created_at <= now - _LONGEST_PROGRESS_WAIT:
        return False
    in_flight = Notice.objects.filter(pk__in=[each.pk for each in progress], state=State.SENDING)
    return in_flight.filter(next_attempt_at__gt=now).exists()


def progress_key(run: TaskRun) -> str:
    """Return the key of the notice with a run's progress."""
    return f"{PROGRESS_KEY}{run.pk}"


def is_at_work(progress: Notice) -> bool:
    """Return whether the run of this progress message is running."""
    run_id = progress.key.removeprefix(PROGRESS_KEY)
    return TaskRun.objects.filter(pk=run_id, state=TaskRun.State.RUNNING).exists()


def _has_turn(notice: Notice) -> bool:
    return (
        bool(notice.thread_ts)
        and not posting.is_posted(notice)
        and notice.kind != Notice.Kind.PROGRESS
        and notice.destination != Notice.Destination.EPHEMERAL
    )


def _of_thread(notice: Notice) -> QuerySet[Notice]:
    return Notice.objects.filter(
        workspace=notice.workspace_id, channel_id=notice.channel_id, thread_ts=notice.thread_ts
    )
