"""Tell Slack the state of each thread's work. Rows record what Slack shows, as processes can die.

Setting a status again does no harm, so an attempt whose outcome is unknown is simply repeated.
https://docs.slack.dev/reference/methods/agents.sessions.setStatus
"""

from datetime import datetime, timedelta

import structlog
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from slack_sdk import WebClient

from coding_tasks.models import CodingTask
from projects.models import SlackWorkspace
from workflows.agent_sessions import availability
from workflows.agent_sessions.differences import Status, Wanted, differing
from workflows.models import ERASED, AgentSession
from workflows.slack import pauses
from workflows.slack.client import Failure, Meaning, client_for, failure_of

log = structlog.get_logger(__name__)

SHOW_SESSIONS = "workflows.tasks.show_agent_sessions"
_MOST = 100
_LEASE = timedelta(seconds=45)
_WAIT = timedelta(seconds=10)
"""How long to wait after a temporary failure, unless Slack asks for more."""
_METHODS = {"agents.sessions.setStatus", "agents.sessions.rename"}


def due(now: datetime) -> list[Wanted]:
    """Return the sessions that Slack should show differently."""
    return differing(now, _MOST)


def show(wanted: Wanted) -> None:
    """Make Slack show a session, unless another process does so. Don't raise Slack's failures."""
    now = timezone.now()
    pause = pauses.find(wanted.workspace_id, _METHODS, now)
    if pause.until is not None:
        return
    session = _take(wanted, now)
    if session is None:
        return
    if not availability.may_call(wanted.workspace_id, now):
        _mine(session).update(due_at=None)
        return
    try:
        _call(client_for(SlackWorkspace.objects.get(pk=wanted.workspace_id)), wanted, session)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        _keep_failure(session, failure, now)
    else:
        if pause.is_trial:
            pauses.note_answer(wanted.workspace_id)
        availability.note_works(wanted.workspace_id)
        _mine(session).update(status=wanted.status, title=wanted.title, due_at=None)


def erase(tasks: QuerySet[CodingTask]) -> None:
    """Forget the titles of these tasks, so that the next sweep sends Slack the new ones."""
    threads = AgentSession.objects.filter(
        Exists(
            tasks.filter(
                workspace=OuterRef("workspace"),
                channel_id=OuterRef("channel_id"),
                thread_ts=OuterRef("thread_ts"),
            )
        )
    )
    threads.update(title="")
    # The next sweep closes these sessions again, and sets their titles.
    threads.filter(status=Status.CLOSED).update(status=Status.ACTIVE)


def forget_old(now: datetime) -> None:
    """Delete the rows of threads at rest that Slack refused or doesn't show, or that were erased.

    Other closed sessions are kept as long as their tasks: an erasure has to know that Slack shows
    their titles.
    """
    active = CodingTask.objects.filter(
        workspace=OuterRef("workspace"),
        channel_id=OuterRef("channel_id"),
        thread_ts=OuterRef("thread_ts"),
        state=CodingTask.State.ACTIVE,
    )
    useless = Q(refused=True) | Q(status="") | Q(status=Status.CLOSED, title=ERASED)
    free = Q(due_at=None) | Q(due_at__lte=now)
    AgentSession.objects.filter(useless, free, ~Exists(active)).delete()


def _take(wanted: Wanted, now: datetime) -> AgentSession | None:
    """Return the session's row, leased, or None if another process has it."""
    session, _ = AgentSession.objects.get_or_create(
        workspace_id=wanted.workspace_id,
        channel_id=wanted.channel_id,
        thread_ts=wanted.thread_ts,
    )
    free = AgentSession.objects.filter(Q(due_at=None) | Q(due_at__lte=now), pk=session.pk)
    if not free.update(due_at=now + _LEASE):
        return None
    return AgentSession.objects.get(pk=session.pk)


def _call(client: WebClient, wanted: Wanted, session: AgentSession) -> None:
    place = {"channel_id": wanted.channel_id, "thread_ts": wanted.thread_ts}
    if not session.status:
        client.agents_sessions_setStatus(
            **place,
            status=wanted.status,
            title=wanted.title,
            initiator_user_id=wanted.owner_id,
        )
        return
    if session.status != wanted.status:
        client.agents_sessions_setStatus(**place, status=wanted.status)
    if session.title != wanted.title:
        client.agents_sessions_rename(**place, title=wanted.title)


def _keep_failure(session: AgentSession, failure: Failure, now: datetime) -> None:
    pauses.note_failure(session.workspace_id, failure, now)
    if failure.meaning is Meaning.REFUSED_HERE:  # the workspace has sessions, but not this thread
        availability.note_works(session.workspace_id)
        _mine(session).update(refused=True, due_at=None)
    elif failure.is_permanent:
        if availability.note_refused(session.workspace_id, now, failure.error):
            log.info(
                "a workspace has no agent sessions",
                workspace=session.workspace_id,
                error=failure.error,
            )
        _mine(session).update(due_at=None)
    else:
        availability.note_unknown(session.workspace_id)
        _mine(session).update(due_at=now + _WAIT)


def _mine(session: AgentSession) -> QuerySet[AgentSession]:
    return AgentSession.objects.filter(pk=session.pk, due_at=session.due_at)
