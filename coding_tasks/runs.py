"""The life of a run: from a request to its one answer, however often an attempt dies on the way."""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import BigIntegerField, F, QuerySet
from django.utils import timezone

from billing.reports.usage import usage_of_run
from coding_tasks.agents import Agent, Assignment, ModelAccess, Turn, trace_of
from coding_tasks.failures import OutOfCredits, RunStopped
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.outages import through_an_outage
from coding_tasks.sandbox import Sandbox
from coding_tasks.storable import storable
from projects.credentials import mint_run_token, revoke_run_tokens
from quota import gate

PRODUCT = "slack_app"
TIME_LIMIT = timedelta(minutes=15)
"""How long one attempt may take, and so how long its token lives."""
_REMEMBERED = 10
_NO_LIMIT = BigIntegerField.MAX_BIGINT


def perform(run: TaskRun, sandbox: Sandbox, agent: Agent) -> TaskRun:
    """Have the agent do the run and keep its answer; return the run as it then is.

    A run that has its answer is not done again. The answer is kept before anything else happens,
    and survives an outage of the database. The agent's token is minted here, is good for this run
    alone and ends with this call. Raises `OutOfCredits` (the run is then paused, and can be
    performed again), `MustWait` and `RunFailure`.
    """
    token = _begin(run)
    if token is None:
        return run
    task = run.task
    access = ModelAccess(
        f"{settings.GATEWAY_URL}/{PRODUCT}", token, trace_of(task.workflow_id), f"run {run.pk}"
    )
    assignment = Assignment(task.repository.full_name, run.request, _earlier(run))
    try:
        with sandbox.checkout(task.repository.clone_url) as checkout:
            answer = agent.work(assignment, checkout, access)
            through_an_outage(lambda: _keep(run, answer))
    except OutOfCredits:
        try:
            waits = F("waits") + 1
            _move(run, TaskRun.State.PAUSED, left_at_pause=_left(run), woken_at=None, waits=waits)
        finally:
            revoke_run_tokens(run.pk)
        _require_not_stopped(run)
        raise
    except BaseException:
        revoke_run_tokens(run.pk)
        raise
    _require_not_stopped(run)
    return run


def verdict_on(run: TaskRun) -> gate.Verdict:
    """Return whether the run may go on, by the limits of its project, its person and itself.

    Raises `QuotaUnknown`.
    """
    task = run.task
    return gate.check(
        task.project,
        to_start=True,
        distinct_id=task.workspace.distinct_id(task.owner_slack_user_id),
        run_usage_micro=usage_of_run(run.pk),
    )


def look_for_credits(run: TaskRun) -> bool:
    """Return whether a paused run has more credits to go on with than when it stopped.

    The run remembers the fewest credits that were seen, and only more than those count.
    Raises `QuotaUnknown`.
    """
    verdict = verdict_on(run)
    left = None if verdict.limited else _amount(verdict)
    before = run.left_at_pause
    if left is not None and (before is None or left > before):
        return True
    if left != before:
        _waiting(run).update(left_at_pause=left)
    return False


def mark_woken(run: TaskRun) -> None:
    """Record that the run's workflow was told of credits; it is not told again.

    `run` is as it was before that: if it went on and waits again since, it is to be told anew.
    """
    _waiting(run).filter(waits=run.waits).update(woken_at=timezone.now())


def stay_paused(run: TaskRun) -> None:
    """Record that the credits were gone again when the workflow looked: it is to be told anew."""
    paused = TaskRun.objects.filter(pk=run.pk, state=TaskRun.State.PAUSED)
    paused.update(left_at_pause=None, woken_at=None, waits=F("waits") + 1)


def to_wake() -> QuerySet[TaskRun]:
    """Return the paused runs whose workflows were not told of credits yet."""
    return TaskRun.objects.filter(state=TaskRun.State.PAUSED, woken_at=None)


def fail(run: TaskRun, error: str) -> None:
    """Record that the run ended without an answer, unless it has one."""
    _move(run, TaskRun.State.FAILED, error=error[:200], finished_at=timezone.now())


def finish_task(task: CodingTask, state: str) -> None:
    """Close an active task; its thread is free for another one then."""
    CodingTask.objects.filter(pk=task.pk, state=CodingTask.State.ACTIVE).update(
        state=state, finished_at=timezone.now()
    )


@transaction.atomic
def _begin(run: TaskRun) -> str | None:
    """Move the run to `running` and return its token; None if another attempt has its answer.

    Raises `RunStopped`.
    """
    # Locked, so that a run being stopped gets no token after its tokens were revoked.
    locked = TaskRun.objects.select_for_update().get(pk=run.pk)
    _require_not_stopped(locked)
    if locked.state == TaskRun.State.SUCCEEDED:
        run.refresh_from_db()
        return None
    _move(run, TaskRun.State.RUNNING, started_at=run.started_at or timezone.now())
    task = run.task
    return mint_run_token(
        task.project,
        run.pk,
        [PRODUCT],
        TIME_LIMIT,
        distinct_id=task.workspace.distinct_id(task.owner_slack_user_id),
    )


def _require_not_stopped(run: TaskRun) -> None:
    if TaskRun.objects.filter(pk=run.pk, state=TaskRun.State.STOPPED).exists():
        raise RunStopped


def _keep(run: TaskRun, answer: str) -> None:
    # The first answer stays, if an attempt that was believed dead comes back with a second one.
    # A run that has its answer is not looked at again: its token ends in the same step.
    with transaction.atomic():
        _move(run, TaskRun.State.SUCCEEDED, answer=storable(answer), finished_at=timezone.now())
        revoke_run_tokens(run.pk)
    run.refresh_from_db()


def _waiting(run: TaskRun) -> QuerySet[TaskRun]:
    return to_wake().filter(pk=run.pk)


def _left(run: TaskRun) -> int | None:
    """Return how much is left for a run that the gateway refused; None where we refuse as well."""
    try:
        verdict = verdict_on(run)
    except gate.QuotaUnknown:
        return None
    return None if verdict.limited else _amount(verdict)


def _amount(verdict: gate.Verdict) -> int:
    """Return what is left as a number: no limit is more than any."""
    return _NO_LIMIT if verdict.remaining_micro is None else verdict.remaining_micro


def _move(run: TaskRun, state: str, **fields: object) -> None:
    unanswered = TaskRun.objects.filter(pk=run.pk).exclude(state__in=TaskRun.FINAL)
    unanswered.update(state=state, **fields)


def _earlier(run: TaskRun) -> tuple[Turn, ...]:
    answered = (
        run.task.runs.filter(state=TaskRun.State.SUCCEEDED, created_at__lt=run.created_at)
        .exclude(answer="")
        .order_by("-created_at")[:_REMEMBERED]
    )
    return tuple(Turn(past.request, past.answer) for past in reversed(answered))
