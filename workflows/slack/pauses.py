"""When a workspace takes no calls: one method after a rate limit, all of them after silence.

Slack limits each method of each workspace by itself, so the wait that it asks for holds for every
notice that needs that method there. A workspace that doesn't answer would take the time of one
sender after another, until no sender is left for the others. So only one call at a time finds out
whether such a workspace answers again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db.models import F, Q

from workflows.models import SlackPause
from workflows.slack.client import Failure

log = structlog.get_logger(__name__)

SHORTEST = timedelta(seconds=5)
LONGEST = timedelta(minutes=1)
"""The longest pause of a silent workspace. Each pause is twice as long as the one before."""
_ALL = ""


@dataclass(frozen=True)
class Pause:
    """Whether to wait, and whether the caller is the one that tries a silent workspace."""

    until: datetime | None = None
    is_trial: bool = False


def find(workspace_id: int, methods: Collection[str], now: datetime) -> Pause:
    """Return whether the workspace takes calls of these methods now."""
    pauses = list(
        SlackPause.objects.filter(Q(method=_ALL) | Q(method__in=methods), workspace=workspace_id)
    )
    latest = max((pause.until for pause in pauses), default=now)
    if latest > now:
        return Pause(until=latest)
    silence = next((pause for pause in pauses if pause.method == _ALL), None)
    if silence is None:
        return Pause()
    mine = SlackPause.objects.filter(pk=silence.pk, until=silence.until)
    if mine.update(until=now + LONGEST):
        return Pause(is_trial=True)
    return Pause(until=now + SHORTEST)


def note_failure(workspace_id: int, failure: Failure, now: datetime) -> None:
    """Record a pause for the workspace if the failure requires one."""
    if failure.retry_after is not None:
        wait = timedelta(seconds=failure.retry_after)
        SlackPause.objects.update_or_create(
            workspace_id=workspace_id, method=failure.method, defaults={"until": now + wait}
        )
    if failure.is_silence:
        pause, _ = SlackPause.objects.get_or_create(
            workspace_id=workspace_id, method=_ALL, defaults={"until": now}
        )
        wait = min(SHORTEST * 2 ** min(pause.silences, 10), LONGEST)
        SlackPause.objects.filter(pk=pause.pk).update(until=now + wait, silences=F("silences") + 1)
        log.warning(
            "a workspace does not answer", workspace=workspace_id, seconds=wait.total_seconds()
        )


def note_answer(workspace_id: int) -> None:
    """Record that a silent workspace answers again."""
    SlackPause.objects.filter(workspace=workspace_id, method=_ALL).delete()


def forget_old(now: datetime) -> None:
    """Delete rate limits that are over."""
    SlackPause.objects.exclude(method=_ALL).filter(until__lte=now).delete()
