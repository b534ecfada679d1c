"""Which workspaces have agent sessions. If Slack says that there are none, ask again once an hour.

The app may be older than `agent_view` in its manifest, or the workspace's plan may lack it. Then
only reactions and edited messages show the work. If a workspace installs the app again, ask at
once.
"""

from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet

from workflows.models import AgentAvailability

TRY_EVERY = timedelta(hours=1)


def without_sessions(now: datetime) -> QuerySet[AgentAvailability, int]:
    """Return the workspaces that were asked within the last hour and had no sessions."""
    asked = AgentAvailability.objects.filter(~_to_ask(now), works=False)
    return asked.values_list("workspace", flat=True)


def may_call(workspace_id: int, now: datetime) -> bool:
    """Return whether to call Slack.

    Until a workspace is known to have sessions, only one caller an hour may.
    """
    known, is_new = AgentAvailability.objects.get_or_create(
        workspace_id=workspace_id, defaults={"tried_at": now}
    )
    if is_new or known.works:
        return True
    mine = AgentAvailability.objects.filter(_to_ask(now), pk=known.pk, works=False)
    return bool(mine.update(tried_at=now))


def _to_ask(now: datetime) -> Q:
    since = Q(tried_at=None) | Q(tried_at__lte=now - TRY_EVERY)
    return since | Q(tried_at__lt=F("workspace__installed_at"))


def note_works(workspace_id: int) -> None:
    """Record that the workspace has sessions."""
    unknown = AgentAvailability.objects.filter(workspace=workspace_id, works=False)
    unknown.update(works=True, error="")


def note_refused(workspace_id: int, now: datetime, error: str) -> bool:
    """Record that the workspace has no sessions; return whether that is news."""
    rows = AgentAvailability.objects.filter(workspace=workspace_id)
    is_news = rows.exclude(error=error).exists()
    rows.update(works=False, tried_at=now, error=error)
    return is_news


def note_unknown(workspace_id: int) -> None:
    """Let the next caller find out, because Slack did not say whether there are sessions."""
    AgentAvailability.objects.filter(workspace=workspace_id, works=False).update(tried_at=None)
