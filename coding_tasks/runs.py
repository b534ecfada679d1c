"""The life of a run, from a request to its one answer, through attempts that die and pauses."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import BigIntegerField, F, QuerySet
from django.utils import timezone

from billing.ingestion.refunds import refund_attempt, refund_run
from billing.reports.usage import usage_of_run
from coding_tasks.failures import AcceptedCapReached, OutOfCredits, RunGivenUp, RunStopped
from coding_tasks.material import Material
from coding_tasks.models import CodingTask, TaskRun
from coding_tasks.outages import outlast_outage
from coding_tasks.reading.assignments import Agent, Assignment, ModelAccess, Turn, trace_of
from coding_tasks.reading.checkouts import Checkout, Checkouts, EmptyCheckout
from coding_tasks.storable import storable
from projects.authentication.credentials import mint_run_token, revoke_run_tokens
from quota import gate

TIME_LIMIT = timedelta(minutes=15)
"""How long one attempt may take, and how long its token lives."""
LOST_TURN = "LostTurn"
"""The reason for giving back what a turn cost that another agent worker had to repeat."""
_ACTOR = "coding tasks"
_REMEMBERED = 10
_NO_LIMIT = BigIntegerField.MAX_BIGINT


def perform(
    run: TaskRun,
    checkouts: Checkouts,
    agent: Agent,
    read_material: Callable[[], Material] = Material,
) -> TaskRun:
    """Have the agent do the run and store its answer; return the updated run.

    `read_material` returns what the agent gets in addition to the request. A run that has an answer
    is not done again. The answer is stored before anything else happens, even if the database is
    down for a while. The agent's token is valid for this run and this call only. Raises
    `OutOfCredits` (the run is then paused, and can be performed again), `MustWait` and
    `RunFailure`.
    """
    token = begin(run, TIME_LIMIT)
    if token is None:
        return run
    task = run.task
    access = ModelAccess(
        f"{settings.GATEWAY_URL}/{task.product}", token, trace_of(task.workflow_id), f"run {run.pk}"
    )
    try:
        assignment = Assignment(
            task.repository_name,
            run.request,
            earlier_turns(run),
            model=task.model,
            material=read_material(),
        )
        with _checkout(task, checkouts) as checkout:
            answer = agent.work(assignment, checkout, access)
            outlast_outage(lambda: store(run, answer))
    except OutOfCredits:
        pause(run)
        raise
    except BaseException:
        revoke_run_tokens(run.pk)
        raise
    require_not_ended(run)
    return run


def _checkout(task: CodingTask, checkouts: Checkouts) -> AbstractContextManager[Checkout]:
    if task.repository is None:
        return nullcontext(EmptyCheckout())
    return checkouts.checkout(task.repository.clone_url)


def verdict_on(run: TaskRun) -> gate.Verdict:
    """Return the verdict on whether the run may go on: by its team, project, user and own cap.

    Raises `QuotaUnknown`.
    """
    task = run.task
    return gate.check(
        task.project,
        task.resource,
        to_start=True,
        distinct_id=run.distinct_id,
        run_usage_micro=usage_of_run(run.pk),
    )


def has_gained_credits(run: TaskRun) -> bool:
    """Return whether a paused run has more credits to go on with than when it stopped.

    The run's row holds the fewest credits seen since then, and there must be more than those.
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
    """Record that the run's workflow was told of credits, so that it is not told again.

    `run` is the row from before the signal. If the run has gone on and waits again since then, this
    does nothing, and its workflow will be told again.
    """
    _waiting(run).filter(waits=run.waits).update(woken_at=timezone.now())


def stay_paused(run: TaskRun) -> None:
    """Record that the workflow found too few credits, so that it will be told again."""
    paused = TaskRun.objects.filter(pk=run.pk, state=TaskRun.State.PAUSED)
    paused.update(left_at_pause=None, woken_at=None, waits=F("waits") + 1)


def to_wake() -> QuerySet[TaskRun]:
    """Return the paused runs whose workflows were not yet told of credits."""
    return TaskRun.objects.filter(state=TaskRun.State.PAUSED, woken_at=None)


@transaction.atomic
def fail(run: TaskRun, error: str, *, ours: bool = False) -> None:
    """Record that the run ended without an answer, unless it has one, and revoke its tokens.

    If the failure is `ours`, what the run cost is given back in the same transaction.
    """
    # The lock keeps an answer or a stop from coming between the check and the refund.
    locked = TaskRun.objects.select_for_update().get(pk=run.pk)
    revoke_run_tokens(run.pk)
    if locked.state in TaskRun.FINAL:
        return
    _move(
        run,
        TaskRun.State.FAILED,
        error=error[:200],
        used_all_accepted=error == AcceptedCapReached.__name__,
        finished_at=timezone.now(),
    )
    if ours:
        give_back(run, error)


def give_back(run: TaskRun, failure: str) -> None:
    """Give back what the run cost, once, and whatever is booked for it later.

    The run's tokens must be revoked. `failure` becomes the reason in the ledger's audit trail.
    """
    refund_run(run.pk, run.task.project, reason=failure, actor=_ACTOR)


@transaction.atomic
def give_back_lost_turn(run: TaskRun) -> None:
    """Give back what an agent's turn cost whose work was never collected, if there is such a turn.

    The run's tokens must be revoked. The run then does the work again, at its own cost.
    """
    locked = TaskRun.objects.select_for_update().get(pk=run.pk)
    since = locked.uncollected_since
    if since is None or locked.state in TaskRun.FINAL:
        return
    refund_attempt(
        run.pk,
        run.task.project,
        since,
        timezone.now(),
        reason=LOST_TURN,
        actor=_ACTOR,
    )
    TaskRun.objects.filter(pk=run.pk).update(uncollected_since=None)


def mark_turn(run: TaskRun, since: datetime) -> None:
    """Record that an agent's turn begins, before anybody can make a call for it."""
    TaskRun.objects.filter(pk=run.pk).update(uncollected_since=since)


def mark_collected(run: TaskRun) -> None:
    """Record that what the agent's turn made is here. It keeps its cost, and frees its place."""
    TaskRun.objects.filter(pk=run.pk).update(
        uncollected_since=None, place_wanted_at=None, has_place=False
    )


def finish_task(task: CodingTask, state: str) -> None:
    """Close an active task, so that its thread is free for another one."""
    CodingTask.objects.filter(pk=task.pk, state=CodingTask.State.ACTIVE).update(
        state=state, finished_at=timezone.now()
    )


def earlier_turns(run: TaskRun) -> tuple[Turn, ...]:
    """Return the answered requests of the task before this one, oldest first."""
    answered = (
        run.task.runs.filter(state=TaskRun.State.SUCCEEDED, created_at__lt=run.created_at)
        .exclude(answer="")
        .order_by("-created_at")[:_REMEMBERED]
    )
    return tuple(Turn(past.request, past.answer) for past in reversed(answered))


@transaction.atomic
def begin(run: TaskRun, lifetime: timedelta) -> str | None:
    """Move the run to `running` and return its token, or None if the run has an answer.

    Raises `RunStopped` and `RunGivenUp`.
    """
    # The lock keeps a run that is being stopped from getting a token after the revocation.
    locked = TaskRun.objects.select_for_update().get(pk=run.pk)
    require_not_ended(locked)
    if locked.state == TaskRun.State.SUCCEEDED:
        run.refresh_from_db()
        return None
    _move(run, TaskRun.State.RUNNING, started_at=run.started_at or timezone.now())
    task = run.task
    return mint_run_token(
        task.project,
        run.pk,
        [task.product],
        lifetime,
        distinct_id=run.distinct_id,
        accepted_micro=locked.accepted_micro,
    )


def pause(run: TaskRun) -> None:
    """Have the run wait for credits, without a token. Raises `RunStopped` and `RunGivenUp`."""
    try:
        waits = F("waits") + 1
        _move(run, TaskRun.State.PAUSED, left_at_pause=_left(run), woken_at=None, waits=waits)
    finally:
        revoke_run_tokens(run.pk)
    require_not_ended(run)


def require_not_ended(run: TaskRun) -> None:
    """Raise `RunStopped` if somebody stopped the run, and `RunGivenUp` if it was given up."""
    state = TaskRun.objects.filter(pk=run.pk).values_list("state", flat=True).first()
    if state == TaskRun.State.STOPPED:
        raise RunStopped
    if state == TaskRun.State.FAILED:
        raise RunGivenUp


def store(run: TaskRun, answer: str, *, used_all_accepted: bool = False) -> None:
    """Store the answer and revoke the run's tokens."""
    # The first answer stays if an attempt that was believed dead comes back with a second one.
    # The token is revoked in the same transaction, because nothing looks at the run again.
    with transaction.atomic():
        _move(
            run,
            TaskRun.State.SUCCEEDED,
            answer=storable(answer),
            used_all_accepted=used_all_accepted,
            finished_at=timezone.now(),
        )
        revoke_run_tokens(run.pk)
    run.refresh_from_db()


def _waiting(run: TaskRun) -> QuerySet[TaskRun]:
    return to_wake().filter(pk=run.pk)


def _left(run: TaskRun) -> int | None:
    """Return how much is left for a run that the gateway refused, or None if we refuse it too."""
    try:
        verdict = verdict_on(run)
    except gate.QuotaUnknown:
        return None
    return None if verdict.limited else _amount(verdict)


def _amount(verdict: gate.Verdict) -> int:
    """Return what is left, or the largest number if there is no limit."""
    return _NO_LIMIT if verdict.remaining_micro is None else verdict.remaining_micro


def _move(run: TaskRun, state: str, **fields: object) -> None:
    unanswered = TaskRun.objects.filter(pk=run.pk).exclude(state__in=TaskRun.FINAL)
    unanswered.update(state=state, **fields)
