"""Find the threads whose session in Slack should change, from the rows of tasks and runs."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import (
    Case,
    CharField,
    Exists,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from coding_tasks.models import CodingTask, TaskRun
from workflows.agent_sessions import availability
from workflows.models import AgentSession


class Status(StrEnum):
    """The states of a session. https://docs.slack.dev/ai/agent-sessions"""

    PROCESSING = "processing"
    SUSPENDED = "suspended"
    """A run waits for credits or stores."""
    ACTIVE = "active"
    """The person may go on."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Slack should show for a thread."""

    workspace_id: int
    channel_id: str
    thread_ts: str
    status: str
    title: str
    owner_id: str

    @property
    def pk(self) -> str:
        """The name in logs."""
        return f"{self.channel_id}/{self.thread_ts}"


def differing(now: datetime, most: int) -> list[Wanted]:
    """Return at most this many threads whose session in Slack should change."""
    usable = ~Q(workspace__in=availability.without_sessions(now))
    return [*_at_work(usable, now, most), *_left_open(usable, now, most)][:most]


def _at_work(usable: Q, now: datetime, most: int) -> list[Wanted]:
    """Return the threads with an active task. A session begins when its first run does."""
    runs = TaskRun.objects.filter(task=OuterRef("pk"))
    working = runs.filter(state__in=(TaskRun.State.QUEUED, TaskRun.State.RUNNING))
    paused = runs.filter(state=TaskRun.State.PAUSED)
    session = _session_of(OuterRef("workspace"), OuterRef("channel_id"), OuterRef("thread_ts"))
    tasks = (
        CodingTask.objects.filter(
            usable,
            origin=CodingTask.Origin.SLACK,
            state=CodingTask.State.ACTIVE,
            workspace__is_active=True,
        )
        .annotate(
            wanted=Case(
                When(Exists(working), then=Value(Status.PROCESSING.value)),
                When(Exists(paused), then=Value(Status.SUSPENDED.value)),
                default=Value(Status.ACTIVE.value),
                output_field=CharField(),
            ),
            shown=Coalesce(Subquery(session.values("status")[:1]), Value("")),
            shown_title=Subquery(session.values("title")[:1]),
        )
        .filter(~Exists(session.filter(Q(refused=True) | Q(due_at__gt=now))))
        .filter(
            Q(shown="", wanted=Status.PROCESSING)
            | ~Q(shown="") & ~Q(shown=F("wanted"), shown_title=F("title"))
        )
    )
    return [
        Wanted(
            task.workspace_id or 0,
            task.channel_id,
            task.thread_ts,
            task.wanted,
            task.title,
            task.owner_slack_user_id,
        )
        for task in tasks.order_by("-created_at")[:most]
    ]


def _left_open(usable: Q, now: datetime, most: int) -> list[Wanted]:
    """Return the threads whose session is open although their last task has ended."""
    tasks = CodingTask.objects.filter(
        workspace=OuterRef("workspace"),
        channel_id=OuterRef("channel_id"),
        thread_ts=OuterRef("thread_ts"),
    ).order_by("-created_at")
    active = tasks.filter(state=CodingTask.State.ACTIVE)
    open_sessions = (
        AgentSession.objects.filter(
            usable, ~Exists(active), refused=False, workspace__is_active=True
        )
        .filter(Q(due_at=None) | Q(due_at__lte=now))
        .annotate(
            task_title=Subquery(tasks.values("title")[:1]),
            owner=Subquery(tasks.values("owner_slack_user_id")[:1]),
        )
        .exclude(status__in=["", Status.CLOSED])
    )
    return [
        Wanted(
            each.workspace_id,
            each.channel_id,
            each.thread_ts,
            Status.CLOSED,
            each.task_title or each.title,
            each.owner or "",
        )
        for each in open_sessions.order_by("pk")[:most]
    ]


def _session_of(workspace: OuterRef, channel: OuterRef, thread: OuterRef) -> QuerySet[AgentSession]:
    return AgentSession.objects.filter(workspace=workspace, channel_id=channel, thread_ts=thread)
