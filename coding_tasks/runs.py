"""The life of a run: from a request to its one answer, however often an attempt dies on the way."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from coding_tasks.agents import Agent, Assignment, Exchange, ModelAccess
from coding_tasks.failures import OutOfCredits
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.sandbox import Sandbox
from projects.credentials import mint_run_token, revoke_run_tokens

PRODUCT = "slack_app"
TIME_LIMIT = timedelta(minutes=15)
"""How long one attempt may take, and so how long its token lives."""
_REMEMBERED = 10


def perform(run: TaskRun, sandbox: Sandbox, agent: Agent) -> TaskRun:
    """Have the agent do the run and keep its answer; return the run as it then is.

    A run that has its answer is not done again. Raises `OutOfCredits` (the run is then paused: it
    may be performed again) and `RunFailure`. The token the agent works with is minted here, is good
    for this run alone and ends with this call.
    """
    if run.state == TaskRun.State.SUCCEEDED:
        return run
    _move(run, TaskRun.State.RUNNING, started_at=run.started_at or timezone.now())
    task = run.task
    token = mint_run_token(
        task.project,
        run.pk,
        [PRODUCT],
        TIME_LIMIT,
        distinct_id=task.workspace.distinct_id(task.owner_slack_user_id),
    )
    access = ModelAccess(f"{settings.GATEWAY_URL}/{PRODUCT}", token)
    assignment = Assignment(task.repository.full_name, run.request, _earlier(run))
    try:
        with sandbox.checkout(task.repository.clone_url) as checkout:
            answer = agent.work(assignment, checkout, access)
    except OutOfCredits:
        _move(run, TaskRun.State.PAUSED)
        raise
    finally:
        revoke_run_tokens(run.pk)
    # The first answer stays, if an attempt that was believed dead comes back with a second one.
    _move(run, TaskRun.State.SUCCEEDED, answer=_storable(answer), finished_at=timezone.now())
    run.refresh_from_db()
    return run


def fail(run: TaskRun, error: str) -> None:
    """Record that the run ended without an answer, unless it has one."""
    _move(run, TaskRun.State.FAILED, error=error[:200], finished_at=timezone.now())


def finish_task(task: CodingTask, state: str) -> None:
    """Close an active task; its thread is free for another one then."""
    CodingTask.objects.filter(pk=task.pk, state=CodingTask.State.ACTIVE).update(
        state=state, finished_at=timezone.now()
    )


def _move(run: TaskRun, state: str, **fields: object) -> None:
    unanswered = TaskRun.objects.filter(pk=run.pk).exclude(state=TaskRun.State.SUCCEEDED)
    unanswered.update(state=state, **fields)


def _storable(text: str) -> str:
    """Return text without what no database stores: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _earlier(run: TaskRun) -> tuple[Exchange, ...]:
    answered = (
        run.task.runs.filter(state=TaskRun.State.SUCCEEDED, created_at__lt=run.created_at)
        .exclude(answer="")
        .order_by("-created_at")[:_REMEMBERED]
    )
    return tuple(Exchange(past.request, past.answer) for past in reversed(answered))
