"""Perform the runs of a task in a workflow: attempts, outages, pauses and answers.

This code is deterministic: it uses no network, clock or database. Activities do that: local
activities for quick work on our own stores, ordinary ones for everything else. Every time limit and
retry policy is stated below.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    RetryState,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import (
    TimeoutError as TimedOut,
)

from coding_tasks.agent_worker.job import QUEUE_SUFFIX, TurnEnded, TurnRef
from workflows.activities.agents import (
    LAST_PUBLISHING,
    AgentActivities,
    Collected,
    Prepared,
    TurnRun,
)
from workflows.activities.coding import CodingActivities, FailedRun, RunAnswer, RunRef
from workflows.activities.quota import PausedRun, QuotaActivities
from workflows.activities.thread import NoticeRef, ThreadActivities
from workflows.mention_types import (
    AGENTS_PATCH,
    ANSWER_LOST,
    CALLS_THROTTLED,
    CREDITS_HELD,
    GATEWAY_OUT,
    NO_AGENT_WORKER,
    ONE_PAUSE_PATCH,
    OUT_OF_CREDITS,
    OUTAGE_PATCH,
    STORES_OUT,
    TIMED_OUT,
    UNDELIVERABLE,
    WAITS_PATCH,
)

Activities = TypeVar("Activities")
Argument = TypeVar("Argument")
Answer = TypeVar("Answer")

# Retries outlast an outage of our stores or of Slack. They don't help against a programming error.
PROGRAMMING_ERRORS = [
    "AssertionError",
    "AttributeError",
    "DoesNotExist",
    "KeyError",
    "TypeError",
    "ValidationError",
    "ValueError",
]
# The failures that work waits out, and the patch that introduced each wait. Drivers' own error
# names come from activities that an older worker scheduled or ran.
WAITED_FOR = {
    **dict.fromkeys(
        (STORES_OUT, "InterfaceError", "OperationalError", "QuotaUnknown"), OUTAGE_PATCH
    ),
    **dict.fromkeys((GATEWAY_OUT, ANSWER_LOST, CREDITS_HELD, CALLS_THROTTLED), WAITS_PATCH),
}
OUTAGE = timedelta(hours=24)
"""How long the database or Slack may be down before a mention fails."""

LOCAL_ATTEMPT = timedelta(seconds=30)
LOCAL_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=PROGRAMMING_ERRORS,
)
LOCAL_RETRY_THRESHOLD = timedelta(seconds=5)
"""A longer wait between attempts becomes a server timer, which occupies no worker."""

SLACK_ATTEMPT = timedelta(minutes=1)
SLACK_HEARTBEAT = timedelta(seconds=10)
SLACK_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=PROGRAMMING_ERRORS,
)
DELIVERY = timedelta(hours=1)
"""How long the workflow waits for a message to be posted. After that, only the sweep tries."""

AGENT_ATTEMPT = timedelta(minutes=25)
"""15 minutes for the run, which is as long as its token lives, and 10 to store its answer."""
AGENT_HEARTBEAT = timedelta(seconds=10)

PREPARE_ATTEMPT = timedelta(minutes=15)
"""For fetching, committing and pushing, whose own time limits end earlier."""
TURN_ATTEMPT = timedelta(minutes=35)
"""Longer than all the time limits of an agent worker's steps together."""
TURN_ATTEMPTS = 2
"""Each is prepared anew, with a token of its own."""
TURN_TRIES = 6
"""Attempts in all. This includes those that a hanging agent worker took but never began."""

WORK_FIRST_RETRY = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=1)
LONGEST_WAIT_FOR_OTHERS = timedelta(seconds=15)
"""Credits held by other calls are free again soon, and the first to look gets them."""

LONGEST_WAIT_IN_LINE = timedelta(seconds=30)
LONGEST_RECHECK = timedelta(hours=1)


@dataclass
class _Pause:
    """How long a run without credits waits: in all, and before it looks again unprompted."""

    until: datetime
    recheck: timedelta


@dataclass(frozen=True)
class _Obstacle:
    """What work has to wait for, the number of attempts made before, and the shortest wait."""

    kind: str
    attempts_before: int
    at_least: timedelta


class Patience(Protocol):
    """How long and how often the runs of a workflow wait: see `MentionInput`."""

    @property
    def pause_seconds(self) -> float: ...

    @property
    def recheck_seconds(self) -> float: ...

    @property
    def attempts(self) -> int: ...

    @property
    def outage_seconds(self) -> float: ...

    @property
    def agent_worker_seconds(self) -> float: ...

    @property
    def lost_answers(self) -> int: ...


class PerformsRuns:
    """The base class of workflows: it performs a run until the run has an answer or fails."""

    def __init__(self) -> None:
        self._gains = 0
        self._uncollected: TurnEnded | None = None

    @workflow.signal
    def credits_gained(self) -> None:
        """Make a paused run check again whether it may go on. A needless signal does no harm."""
        self._gains += 1

    async def _answer(self, patience: Patience, run_id: str) -> str:
        """Perform the run and post its answer; return why there is none, or an empty string."""
        self._uncollected = None
        pause: _Pause | None = None
        while True:
            known = self._signals()
            try:
                run = await self._work(
                    patience,
                    patience.attempts,
                    lambda attempts: self._perform(patience, RunRef(run_id), attempts),
                )
            except (ActivityError, ApplicationError) as error:
                if is_cancelled_exception(error):
                    raise
                return await self._fail_run(run_id, cause_of(error))
            delivered = await self._deliver(run.notice_id)
            if run.answered:
                return "" if delivered else UNDELIVERABLE
            if pause is None or not workflow.patched(ONE_PAUSE_PATCH):
                pause = _Pause(
                    until=workflow.now() + timedelta(seconds=patience.pause_seconds),
                    recheck=timedelta(seconds=patience.recheck_seconds),
                )
            if not await self._credits_return(pause, run_id, known):
                return await self._fail_run(run_id, OUT_OF_CREDITS)

    async def _perform(self, patience: Patience, run: RunRef, attempts: int) -> RunAnswer:
        """Let the agent perform the run, in a sandbox if it needs one."""
        if not workflow.patched(AGENTS_PATCH):
            return await _read_and_answer(run, attempts)
        if self._uncollected is None:
            prepared = await self._prepare_and_run_turn(patience, run, attempts)
            if not prepared.in_sandbox:
                return await _read_and_answer(run, attempts)
        if self._uncollected is not None:
            collected = await self._collect(run, self._uncollected, attempts)
            if collected.notice_id or collected.paused:
                return RunAnswer(collected.notice_id, answered=False)
        publishing = workflow.start_activity_method(
            AgentActivities.publish_run,
            run,
            start_to_close_timeout=PREPARE_ATTEMPT,
            heartbeat_timeout=AGENT_HEARTBEAT,
            retry_policy=work_retry(LAST_PUBLISHING),
        )
        try:
            return await asyncio.shield(publishing)
        except asyncio.CancelledError:
            # The answer says what became of the change, so it is not posted before that is known.
            with contextlib.suppress(FailureError):
                await publishing
            raise

    async def _prepare_and_run_turn(
        self, patience: Patience, run: RunRef, attempts: int
    ) -> Prepared:
        """Have an agent worker run the turn, unless the run has an answer or needs no sandbox.

        A turn whose worker dies is prepared again. That revokes the old token, because the worker
        may only seem dead.
        """
        tries = attempts_begun = 0
        while True:
            prepared = await self._prepare(run, attempts)
            if not prepared.in_sandbox or prepared.answered:
                return prepared
            try:
                self._uncollected = await _run_turn(patience, run)
            except ActivityError as error:
                tries += 1
                attempts_begun += _has_begun(error)
                is_last = attempts_begun == TURN_ATTEMPTS or tries == TURN_TRIES
                if is_last or error.retry_state != RetryState.MAXIMUM_ATTEMPTS_REACHED:
                    raise
            else:
                return prepared

    async def _prepare(self, run: RunRef, attempts: int) -> Prepared:
        """Prepare the run's turn, as soon as its project has a place for it."""
        wait = WORK_FIRST_RETRY
        while True:
            prepared = await workflow.execute_activity_method(
                AgentActivities.prepare_run,
                run,
                start_to_close_timeout=PREPARE_ATTEMPT,
                heartbeat_timeout=AGENT_HEARTBEAT,
                retry_policy=work_retry(attempts),
            )
            if not prepared.in_line:
                return prepared
            await workflow.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_IN_LINE)

    async def _collect(self, run: RunRef, turn: TurnEnded, attempts: int) -> Collected:
        """Store what the turn made. While our stores are down, it stays uncollected."""
        try:
            collected = await workflow.execute_activity_method(
                AgentActivities.collect_run,
                TurnRun(run.run_id, turn.attempt),
                start_to_close_timeout=PREPARE_ATTEMPT,
                heartbeat_timeout=AGENT_HEARTBEAT,
                retry_policy=work_retry(attempts),
            )
        except ActivityError as error:
            obstacle = _obstacle(error)
            if obstacle is None or WAITED_FOR[obstacle.kind] != OUTAGE_PATCH:
                self._uncollected = None
            raise
        self._uncollected = None
        return collected

    async def _work(
        self, patience: Patience, attempts: int, perform: Callable[[int], Awaitable[Answer]]
    ) -> Answer:
        """Perform work in at most `attempts` attempts. Attempts that have to wait don't count.

        The waits grow longer, until the work has waited too long in all.
        """
        until: datetime | None = None
        wait = WORK_FIRST_RETRY
        lost = 0
        while True:
            try:
                return await perform(attempts)
            except ActivityError as error:
                obstacle = _obstacle(error)
                if obstacle is None or not workflow.patched(WAITED_FOR[obstacle.kind]):
                    raise
                until = until or workflow.now() + timedelta(seconds=patience.outage_seconds)
                lost += obstacle.kind == ANSWER_LOST
                if workflow.now() >= until or lost > patience.lost_answers:
                    raise
            attempts = max(1, attempts - obstacle.attempts_before)
            longest = LONGEST_WAIT_FOR_OTHERS if obstacle.kind == CREDITS_HELD else LONGEST_WAIT
            await workflow.sleep(min(max(wait, obstacle.at_least), longest))
            wait = min(2 * wait, LONGEST_WAIT)

    async def _fail_run(self, run_id: str, cause: str) -> str:
        """Give up a run; return why it has no answer, or an empty string if it has one."""
        failed = await locally(CodingActivities.fail_run, FailedRun(run_id, cause))
        delivered = await self._deliver(failed.notice_id)
        if failed.answered:
            return "" if delivered else UNDELIVERABLE
        return cause

    async def _credits_return(self, pause: _Pause, run_id: str, known: int) -> bool:
        """Wait for credits; return whether they came in time.

        Signals of added credits or of messages are acted on at once. Otherwise the checks become
        less frequent. `known` is the number of signals received before the run was refused.
        """
        while workflow.now() < pause.until:
            try:
                await workflow.wait_condition(
                    lambda known=known: self._signals() > known,  # type: ignore[misc]
                    timeout=pause.recheck,
                )
            except TimeoutError:
                pause.recheck = min(pause.recheck * 2, LONGEST_RECHECK)
            known = self._signals()
            credits = await locally(QuotaActivities.check_credits, PausedRun(run_id))
            if credits.available:
                return True
        return False

    def _signals(self) -> int:
        """Return how many signals came that make a paused run look again."""
        return self._gains

    async def _deliver(self, notice_id: str | None) -> bool:
        """Wait until a notice is in the thread; return False if Slack will never take it.

        A notice that takes too long is left to the sweep, and counts as delivered.
        """
        if notice_id is None:
            return True
        try:
            delivered = await with_slack(
                ThreadActivities.deliver_notice, NoticeRef(notice_id), DELIVERY
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("a notice is left to the sweep: %s", cause_of(error))
            return True
        return delivered.sent


async def _read_and_answer(run: RunRef, attempts: int) -> RunAnswer:
    """Perform the run with the agent that only reads."""
    return await workflow.execute_activity_method(
        CodingActivities.run_agent,
        run,
        start_to_close_timeout=AGENT_ATTEMPT,
        heartbeat_timeout=AGENT_HEARTBEAT,
        retry_policy=work_retry(attempts),
    )


async def _run_turn(patience: Patience, run: RunRef) -> TurnEnded:
    """Have an agent worker run the turn, in one attempt.

    Raise `ApplicationError` of type `NO_AGENT_WORKER` if none takes it in time.
    """
    try:
        ended: TurnEnded = await workflow.execute_activity(
            "run_turn",
            TurnRef(run.run_id),
            result_type=TurnEnded,
            task_queue=workflow.info().task_queue + QUEUE_SUFFIX,
            schedule_to_start_timeout=timedelta(seconds=patience.agent_worker_seconds),
            start_to_close_timeout=TURN_ATTEMPT,
            heartbeat_timeout=AGENT_HEARTBEAT,
            retry_policy=work_retry(1),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
    except ActivityError as error:
        cause = error.cause
        if isinstance(cause, TimedOut) and cause.type == TimeoutType.SCHEDULE_TO_START:
            raise ApplicationError("no agent worker", type=NO_AGENT_WORKER) from error
        raise
    return ended


async def locally(activity: Callable[[Activities, Argument], Answer], argument: Argument) -> Answer:
    """Run a local activity on our own stores, and wait while they are down."""
    return await workflow.execute_local_activity_method(
        activity,
        argument,
        start_to_close_timeout=LOCAL_ATTEMPT,
        schedule_to_close_timeout=OUTAGE,
        retry_policy=LOCAL_RETRY,
        local_retry_threshold=LOCAL_RETRY_THRESHOLD,
    )


async def with_slack(
    activity: Callable[[Activities, Argument], Answer], argument: Argument, within: timedelta
) -> Answer:
    """Run an activity that needs Slack, and wait while it is down, but no longer than `within`."""
    return await workflow.execute_activity_method(
        activity,
        argument,
        start_to_close_timeout=SLACK_ATTEMPT,
        schedule_to_close_timeout=within,
        heartbeat_timeout=SLACK_HEARTBEAT,
        retry_policy=SLACK_RETRY,
    )


def work_retry(attempts: int) -> RetryPolicy:
    """Return the retry policy of long activities: at most this many attempts."""
    return RetryPolicy(
        initial_interval=WORK_FIRST_RETRY,
        maximum_attempts=attempts,
        non_retryable_error_types=PROGRAMMING_ERRORS,
    )


def _obstacle(error: ActivityError) -> _Obstacle | None:
    """Return what the activity has to wait for, or None if it failed."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type not in WAITED_FOR:
        return None
    numbers = [each for each in cause.details if isinstance(each, int)]
    before, seconds, *_ = *numbers, 0, 0
    return _Obstacle(cause.type, before, timedelta(seconds=seconds))


def _has_begun(error: ActivityError) -> bool:
    """Return whether the failed activity had begun. An activity that began has sent a heartbeat."""
    cause = error.cause
    if not isinstance(cause, TimedOut) or cause.type != TimeoutType.HEARTBEAT:
        return True
    return bool(cause.last_heartbeat_details)


def cause_of(error: BaseException) -> str:
    """Return what ended an activity: the type of its failure, or that it timed out."""
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, TimedOut):
        return TIMED_OUT
    if isinstance(cause, ApplicationError) and cause.type:
        return cause.type
    return "cancelled" if is_cancelled_exception(error) else type(cause).__name__
