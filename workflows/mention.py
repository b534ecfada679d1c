"""The story of one mention: the gate, the repository, the task, the answer, the conversation.

This code is deterministic: it uses no network, clock or database. Activities do that: local
activities for quick work on our own stores, ordinary ones for everything else. Every time limit and
retry policy is stated below.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

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
from workflows.activities.coding import (
    CodingActivities,
    FailedRun,
    ForwardedMessage,
    NewTask,
    RunAnswer,
    RunRef,
    TaskAnswer,
    TaskEnd,
)
from workflows.activities.quota import PausedRun, QuotaActivities
from workflows.activities.repository import GivenUp, RepositoryActivities
from workflows.activities.thread import Closing, NoticeRef, ThreadActivities
from workflows.mention_types import (
    AGENTS_PATCH,
    ANSWER_LOST,
    CREDITS_HELD,
    GATE_PATCH,
    GATEWAY_OUT,
    NO_AGENT_WORKER,
    ONE_PAUSE_PATCH,
    OUT_OF_CREDITS,
    OUTAGE_PATCH,
    STOPPED,
    STORES_OUT,
    TIMED_OUT,
    UNDELIVERABLE,
    WAITS_PATCH,
    Conversation,
    Ending,
    FollowUpReceived,
    MentionInput,
    MentionOutcome,
    MentionRef,
    RepositoryChoice,
    out_of_credits,
)

Activities = TypeVar("Activities")
Argument = TypeVar("Argument")
Answer = TypeVar("Answer")

# Retries outlast a store or a Slack that is down. They don't help against a programming error.
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
    **dict.fromkeys((GATEWAY_OUT, ANSWER_LOST, CREDITS_HELD), WAITS_PATCH),
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
"""How long the workflow waits for a message to be posted. After that the sweep alone goes on."""

CLASSIFIER_ATTEMPT = timedelta(seconds=40)
CLASSIFIER_ATTEMPTS = 2

AGENT_ATTEMPT = timedelta(minutes=25)
"""15 minutes for the run, as long as its token lives, and 10 to store its answer."""
AGENT_HEARTBEAT = timedelta(seconds=10)

PREPARE_ATTEMPT = timedelta(minutes=15)
"""For fetching, committing and pushing, whose own time limits end earlier."""
TURN_ATTEMPT = timedelta(minutes=35)
"""Longer than all the time limits of an agent worker's steps together."""
TURN_ATTEMPTS = 2
"""Each is prepared anew, with a token of its own."""
TURN_TRIES = 6
"""Attempts in all, with those that an agent worker took but never began, because it hangs."""

WORK_FIRST_RETRY = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=1)
LONGEST_WAIT_FOR_OTHERS = timedelta(seconds=15)
"""Credits held by other calls are free again soon, and the first to look gets them."""

LONGEST_RECHECK = timedelta(hours=1)


class _Ended(Exception):
    """Ends the mention. Its notice says why."""

    def __init__(self, ending: Ending, notice_id: str | None, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending
        self.notice_id = notice_id
        self.reason = reason


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


@workflow.defn
class MentionWorkflow:
    """One mention of the bot, from the gate to the end of the conversation in its thread."""

    def __init__(self) -> None:
        self._follow_ups: deque[str] = deque()
        self._choice: RepositoryChoice | None = None
        self._gains = 0
        self._uncollected: TurnEnded | None = None

    @workflow.signal
    def follow_up(self, received: FollowUpReceived) -> None:
        """Take a further message into the conversation. One signalled twice is answered once."""
        if received.follow_up_id not in self._follow_ups:
            self._follow_ups.append(received.follow_up_id)

    @workflow.signal
    def repository_chosen(self, choice: RepositoryChoice) -> None:
        """Take the choice made in the picker; the first one counts."""
        if self._choice is None:
            self._choice = choice

    @workflow.signal
    def credits_gained(self) -> None:
        """Have a paused run check again whether it may go on. A needless signal does no harm."""
        self._gains += 1

    @workflow.run
    async def run(self, mention: MentionInput) -> MentionOutcome:
        """Handle the mention to its end. However it ends, its row and its thread say so."""
        try:
            return await self._handle_or_end(mention)
        except (FailureError, asyncio.CancelledError) as error:
            outcome = MentionOutcome(Ending.FAILED, _cause(error))
            await self._break_down(mention, outcome)
            if is_cancelled_exception(error):
                raise
            return outcome

    async def _handle_or_end(self, mention: MentionInput) -> MentionOutcome:
        try:
            return await self._handle(mention)
        except _Ended as ended:
            await self._deliver(ended.notice_id)
            outcome = MentionOutcome(ended.ending, ended.reason)
            await self._close(mention, outcome)
            return outcome

    async def _handle(self, mention: MentionInput) -> MentionOutcome:
        if mention.conversation is not None:
            self._follow_ups.extendleft(reversed(mention.conversation.follow_up_ids))
            await self._converse(mention, mention.conversation.task_id)
            return MentionOutcome(Ending.ANSWERED)
        about = MentionRef(mention.mention_id)
        if workflow.patched(GATE_PATCH):
            gate = await _locally(QuotaActivities.check_quota, about)
            if gate.reason:
                raise _Ended(Ending.REFUSED, gate.denial_id, out_of_credits(gate.reason))
        access = await _with_slack(ThreadActivities.check_access, about, OUTAGE)
        if access.notice_id:
            raise _Ended(Ending.REFUSED, access.notice_id, access.reason)
        task = await self._make_task(mention, await self._choose_repository(mention))
        if task.holder:
            outcome = MentionOutcome(Ending.FORWARDED, f"follow-up of {task.holder}")
            await self._close(mention, outcome)
            return outcome
        failure = await self._answer(mention, task.run_id)
        outcome = MentionOutcome(Ending.FAILED if failure else Ending.ANSWERED, failure)
        await self._close(mention, outcome)
        if failure and await self._end_task(task.task_id, "failed"):
            return outcome
        await self._converse(mention, task.task_id)
        return outcome

    # --- the repository --------------------------------------------------------------------------

    async def _choose_repository(self, mention: MentionInput) -> int:
        about = MentionRef(mention.mention_id)
        found = await _locally(RepositoryActivities.choose_repository, about)
        if not found.repository_id and not found.notice_id and found.reason != STOPPED:
            try:
                found = await self._work(
                    mention,
                    CLASSIFIER_ATTEMPTS,
                    lambda attempts: workflow.execute_activity_method(
                        RepositoryActivities.classify_repository,
                        about,
                        start_to_close_timeout=CLASSIFIER_ATTEMPT,
                        retry_policy=_work_retry(attempts),
                    ),
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                cause = _cause(error)
                if WAITED_FOR.get(cause) == WAITS_PATCH and workflow.patched(WAITS_PATCH):
                    # A picker would not help: the work would have to wait for the same thing.
                    given_up = GivenUp(mention.mention_id, cause)
                    said = await _locally(RepositoryActivities.give_up, given_up)
                    raise _Ended(Ending.FAILED, said.notice_id, cause) from None
                workflow.logger.warning("the classifier is broken: %s", cause)
        if found.reason == STOPPED:
            raise _Ended(Ending.REFUSED, None, STOPPED)
        if found.notice_id:
            ending = Ending.FAILED if found.reason == "no repository" else Ending.REFUSED
            raise _Ended(ending, found.notice_id, found.reason)
        return found.repository_id or await self._ask_for_repository(mention)

    async def _ask_for_repository(self, mention: MentionInput) -> int:
        about = MentionRef(mention.mention_id)
        offer = await _locally(RepositoryActivities.offer_repositories, about)
        await self._deliver(offer.notice_id)
        try:
            await workflow.wait_condition(
                lambda: self._choice is not None, timeout=mention.picker_seconds
            )
        except TimeoutError:
            expired = await _locally(RepositoryActivities.close_picker, about)
            raise _Ended(Ending.FAILED, expired.notice_id, "no repository was chosen") from None
        assert self._choice is not None
        return self._choice.repository_id

    # --- the task and its conversation -----------------------------------------------------------

    async def _make_task(self, mention: MentionInput, repository_id: int) -> TaskAnswer:
        """Make the task, or hand the mention to the task that holds the thread."""
        new = NewTask(mention.mention_id, repository_id)
        while True:
            task = await _with_slack(CodingActivities.create_task, new, OUTAGE)
            if task.notice_id or task.reason:
                raise _Ended(Ending.REFUSED, task.notice_id, task.reason)
            if not task.holder:
                return task
            holder = workflow.get_external_workflow_handle_for(MentionWorkflow.run, task.holder)
            try:
                await holder.signal(MentionWorkflow.follow_up, FollowUpReceived(task.follow_up_id))
            except ApplicationError:
                new = replace(new, gone=task.holder)
            else:
                return task

    async def _converse(self, mention: MentionInput, task_id: str) -> None:
        """Answer further messages until the thread has been silent for long enough."""
        while True:
            try:
                await workflow.wait_condition(
                    lambda: bool(self._follow_ups), timeout=mention.idle_seconds
                )
            except TimeoutError:
                if await self._end_task(task_id, "done"):
                    return
            while self._follow_ups:
                await self._take(mention, ForwardedMessage(task_id, self._follow_ups.popleft()))
                if workflow.info().is_continue_as_new_suggested():
                    waiting = Conversation(task_id, tuple(self._follow_ups))
                    workflow.continue_as_new(replace(mention, conversation=waiting))

    async def _take(self, mention: MentionInput, message: ForwardedMessage) -> None:
        forwarded = await _locally(CodingActivities.forward_follow_up, message)
        await self._deliver(forwarded.notice_id)
        if forwarded.run_id:
            await self._answer(mention, forwarded.run_id)

    async def _end_task(self, task_id: str, state: str) -> bool:
        """Close the task. If messages came at the last moment, take them up and return False."""
        ended = await _locally(CodingActivities.end_task, TaskEnd(task_id, state))
        self._follow_ups.extend(each for each in ended.waiting if each not in self._follow_ups)
        return not ended.waiting

    # --- one run ---------------------------------------------------------------------------------

    async def _answer(self, mention: MentionInput, run_id: str) -> str:
        """Perform the run and post its answer; return why there is none, or an empty string."""
        self._uncollected = None
        pause: _Pause | None = None
        while True:
            known = self._signals()
            try:
                run = await self._work(
                    mention,
                    mention.attempts,
                    lambda attempts: self._perform(mention, RunRef(run_id), attempts),
                )
            except (ActivityError, ApplicationError) as error:
                if is_cancelled_exception(error):
                    raise
                return await self._fail_run(run_id, _cause(error))
            delivered = await self._deliver(run.notice_id)
            if run.answered:
                return "" if delivered else UNDELIVERABLE
            if pause is None or not workflow.patched(ONE_PAUSE_PATCH):
                pause = _Pause(
                    until=workflow.now() + timedelta(seconds=mention.pause_seconds),
                    recheck=timedelta(seconds=mention.recheck_seconds),
                )
            if not await self._credits_return(pause, run_id, known):
                return await self._fail_run(run_id, OUT_OF_CREDITS)

    async def _perform(self, mention: MentionInput, run: RunRef, attempts: int) -> RunAnswer:
        """Have the agent do the run, in a sandbox if it needs one."""
        if not workflow.patched(AGENTS_PATCH):
            return await _read_and_answer(run, attempts)
        if self._uncollected is None:
            prepared = await self._prepare_and_run_turn(mention, run, attempts)
            if not prepared.in_sandbox:
                return await _read_and_answer(run, attempts)
        if self._uncollected is not None:
            collected = await self._collect(run, self._uncollected, attempts)
            if collected.notice_id:
                return RunAnswer(collected.notice_id, answered=False)
        return await workflow.execute_activity_method(
            AgentActivities.publish_run,
            run,
            start_to_close_timeout=PREPARE_ATTEMPT,
            heartbeat_timeout=AGENT_HEARTBEAT,
            retry_policy=_work_retry(LAST_PUBLISHING),
        )

    async def _prepare_and_run_turn(
        self, mention: MentionInput, run: RunRef, attempts: int
    ) -> Prepared:
        """Have an agent worker run the turn, unless the run has an answer or needs no sandbox.

        A turn whose worker dies is prepared again, because that takes away the token: the worker
        may only seem dead.
        """
        tries = attempts_begun = 0
        while True:
            prepared = await workflow.execute_activity_method(
                AgentActivities.prepare_run,
                run,
                start_to_close_timeout=PREPARE_ATTEMPT,
                heartbeat_timeout=AGENT_HEARTBEAT,
                retry_policy=_work_retry(attempts),
            )
            if not prepared.in_sandbox or prepared.answered:
                return prepared
            try:
                self._uncollected = await _run_turn(mention, run)
            except ActivityError as error:
                tries += 1
                attempts_begun += _has_begun(error)
                is_last = attempts_begun == TURN_ATTEMPTS or tries == TURN_TRIES
                if is_last or error.retry_state != RetryState.MAXIMUM_ATTEMPTS_REACHED:
                    raise
            else:
                return prepared

    async def _collect(self, run: RunRef, turn: TurnEnded, attempts: int) -> Collected:
        """Keep what the turn made. While our stores are down, it stays uncollected."""
        try:
            collected = await workflow.execute_activity_method(
                AgentActivities.collect_run,
                TurnRun(run.run_id, turn.attempt),
                start_to_close_timeout=PREPARE_ATTEMPT,
                heartbeat_timeout=AGENT_HEARTBEAT,
                retry_policy=_work_retry(attempts),
            )
        except ActivityError as error:
            obstacle = _obstacle(error)
            if obstacle is None or WAITED_FOR[obstacle.kind] != OUTAGE_PATCH:
                self._uncollected = None
            raise
        self._uncollected = None
        return collected

    async def _work(
        self, mention: MentionInput, attempts: int, perform: Callable[[int], Awaitable[Answer]]
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
                until = until or workflow.now() + timedelta(seconds=mention.outage_seconds)
                lost += obstacle.kind == ANSWER_LOST
                if workflow.now() >= until or lost > mention.lost_answers:
                    raise
            attempts = max(1, attempts - obstacle.attempts_before)
            longest = LONGEST_WAIT_FOR_OTHERS if obstacle.kind == CREDITS_HELD else LONGEST_WAIT
            await workflow.sleep(min(max(wait, obstacle.at_least), longest))
            wait = min(2 * wait, LONGEST_WAIT)

    async def _fail_run(self, run_id: str, cause: str) -> str:
        """Give up a run; return why it has no answer, or an empty string if it has one."""
        failed = await _locally(CodingActivities.fail_run, FailedRun(run_id, cause))
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
            credits = await _locally(QuotaActivities.check_credits, PausedRun(run_id))
            if credits.available:
                return True
        return False

    def _signals(self) -> int:
        """Return how many signals came that make a paused run look again: messages and credits."""
        return len(self._follow_ups) + self._gains

    # --- the end ---------------------------------------------------------------------------------

    async def _deliver(self, notice_id: str | None) -> bool:
        """Wait until a notice is in the thread; return False if Slack will never take it.

        A notice that takes too long is left to the sweep, and counts as delivered.
        """
        if notice_id is None:
            return True
        try:
            delivered = await _with_slack(
                ThreadActivities.deliver_notice, NoticeRef(notice_id), DELIVERY
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.warning("a notice is left to the sweep: %s", _cause(error))
            return True
        return delivered.sent

    async def _close(self, mention: MentionInput, outcome: MentionOutcome) -> None:
        closing = Closing(mention.mention_id, outcome.ending, outcome.reason)
        await _locally(ThreadActivities.close_mention, closing)

    async def _break_down(self, mention: MentionInput, outcome: MentionOutcome) -> None:
        closing = Closing(mention.mention_id, outcome.ending, outcome.reason)
        broken = await _locally(ThreadActivities.break_down, closing)
        await self._deliver(broken.notice_id)


async def _read_and_answer(run: RunRef, attempts: int) -> RunAnswer:
    """Have the agent that only reads do the run."""
    return await workflow.execute_activity_method(
        CodingActivities.run_agent,
        run,
        start_to_close_timeout=AGENT_ATTEMPT,
        heartbeat_timeout=AGENT_HEARTBEAT,
        retry_policy=_work_retry(attempts),
    )


async def _run_turn(mention: MentionInput, run: RunRef) -> TurnEnded:
    """Have an agent worker run the turn, in one attempt."""
    try:
        ended: TurnEnded = await workflow.execute_activity(
            "run_turn",
            TurnRef(run.run_id),
            result_type=TurnEnded,
            task_queue=workflow.info().task_queue + QUEUE_SUFFIX,
            schedule_to_start_timeout=timedelta(seconds=mention.agent_worker_seconds),
            start_to_close_timeout=TURN_ATTEMPT,
            heartbeat_timeout=AGENT_HEARTBEAT,
            retry_policy=_work_retry(1),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
    except ActivityError as error:
        cause = error.cause
        if isinstance(cause, TimedOut) and cause.type == TimeoutType.SCHEDULE_TO_START:
            raise ApplicationError("no agent worker", type=NO_AGENT_WORKER) from error
        raise
    return ended


async def _locally(
    activity: Callable[[Activities, Argument], Answer], argument: Argument
) -> Answer:
    """Run a local activity on our own stores, and wait while they are down."""
    return await workflow.execute_local_activity_method(
        activity,
        argument,
        start_to_close_timeout=LOCAL_ATTEMPT,
        schedule_to_close_timeout=OUTAGE,
        retry_policy=LOCAL_RETRY,
        local_retry_threshold=LOCAL_RETRY_THRESHOLD,
    )


async def _with_slack(
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


def _work_retry(attempts: int) -> RetryPolicy:
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
    """Return whether the activity that failed had begun. Its first heartbeat says so."""
    cause = error.cause
    if not isinstance(cause, TimedOut) or cause.type != TimeoutType.HEARTBEAT:
        return True
    return bool(cause.last_heartbeat_details)


def _cause(error: BaseException) -> str:
    """Return what ended an activity: the type of its failure, or that it timed out."""
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, TimedOut):
        return TIMED_OUT
    if isinstance(cause, ApplicationError) and cause.type:
        return cause.type
    return "cancelled" if is_cancelled_exception(error) else type(cause).__name__
