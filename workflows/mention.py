"""The workflow of one mention: the gate, the repository, the task, the answer, the conversation.

This code is deterministic: it uses no network, clock or database. Activities do that. What it
shares with the workflow of other tasks is in `workflows.task_runs`.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    is_cancelled_exception,
)

from workflows.activities.coding import (
    CodingActivities,
    ForwardedMessage,
    NewTask,
    TaskAnswer,
    TaskEnd,
)
from workflows.activities.quota import QuotaActivities
from workflows.activities.quotes import AnswerWanted, NewQuote, QuoteActivities
from workflows.activities.repository import GivenUp, RepositoryActivities
from workflows.activities.thread import Closing, ThreadActivities
from workflows.mention_types import (
    GATE_PATCH,
    QUOTES_PATCH,
    STOPPED,
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
from workflows.task_runs import (
    OUTAGE,
    WAITED_FOR,
    PerformsRuns,
    cause_of,
    locally,
    with_slack,
    work_retry,
)

CLASSIFIER_ATTEMPT = timedelta(seconds=40)
CLASSIFIER_ATTEMPTS = 2


class _Ended(Exception):
    """Ends the mention. Its notice says why."""

    def __init__(self, ending: Ending, notice_id: str | None, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending
        self.notice_id = notice_id
        self.reason = reason


@workflow.defn
class MentionWorkflow(PerformsRuns):
    """One mention of the bot, from the gate to the end of the conversation in its thread."""

    def __init__(self) -> None:
        super().__init__()
        self._follow_ups: deque[str] = deque()
        self._choice: RepositoryChoice | None = None
        self._quote_answers = 0

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
    def quote_answered(self) -> None:
        """Look for the answer to the question about the cost. A needless signal does no harm."""
        self._quote_answers += 1

    @workflow.run
    async def run(self, mention: MentionInput) -> MentionOutcome:
        """Handle the mention to its end. However it ends, its row and its thread say so."""
        try:
            return await self._handle_or_end(mention)
        except (FailureError, asyncio.CancelledError) as error:
            outcome = MentionOutcome(Ending.FAILED, cause_of(error))
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
            gate = await locally(QuotaActivities.check_quota, about)
            if gate.reason:
                raise _Ended(Ending.REFUSED, gate.denial_id, out_of_credits(gate.reason))
        access = await with_slack(ThreadActivities.check_access, about, OUTAGE)
        if access.notice_id:
            raise _Ended(Ending.REFUSED, access.notice_id, access.reason)
        task = await self._make_task(mention, await self._choose_repository(mention))
        if task.holder:
            outcome = MentionOutcome(Ending.FORWARDED, f"follow-up of {task.holder}")
            await self._close(mention, outcome)
            return outcome
        if refusal := await self._refused_quote(mention, task.run_id):
            raise _Ended(Ending.REFUSED, None, refusal)
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
        found = await locally(RepositoryActivities.choose_repository, about)
        if found.repository_id is None and not found.notice_id and found.reason != STOPPED:
            try:
                found = await self._work(
                    mention,
                    CLASSIFIER_ATTEMPTS,
                    lambda attempts: workflow.execute_activity_method(
                        RepositoryActivities.classify_repository,
                        about,
                        start_to_close_timeout=CLASSIFIER_ATTEMPT,
                        retry_policy=work_retry(attempts),
                    ),
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                cause = cause_of(error)
                if WAITED_FOR.get(cause) == WAITS_PATCH and workflow.patched(WAITS_PATCH):
                    # A picker would not help: the work would have to wait for the same thing.
                    given_up = GivenUp(mention.mention_id, cause)
                    said = await locally(RepositoryActivities.give_up, given_up)
                    raise _Ended(Ending.FAILED, said.notice_id, cause) from None
                workflow.logger.warning("the classifier is broken: %s", cause)
        if found.reason == STOPPED:
            raise _Ended(Ending.REFUSED, None, STOPPED)
        if found.notice_id:
            ending = Ending.FAILED if found.reason == "no repository" else Ending.REFUSED
            raise _Ended(ending, found.notice_id, found.reason)
        if found.repository_id is not None:
            return found.repository_id
        return await self._ask_for_repository(mention)

    async def _ask_for_repository(self, mention: MentionInput) -> int:
        about = MentionRef(mention.mention_id)
        offer = await locally(RepositoryActivities.offer_repositories, about)
        await self._deliver(offer.notice_id)
        try:
            await workflow.wait_condition(
                lambda: self._choice is not None, timeout=mention.picker_seconds
            )
        except TimeoutError:
            expired = await locally(RepositoryActivities.close_picker, about)
            raise _Ended(Ending.FAILED, expired.notice_id, "no repository was chosen") from None
        assert self._choice is not None
        return self._choice.repository_id

    # --- what a run may cost --------------------------------------------------------------------

    async def _refused_quote(self, mention: MentionInput, run_id: str) -> str:
        """Quote what the run may cost, and ask first if that is wanted; return why not to begin.

        Return an empty string if the run may begin.
        """
        if not workflow.patched(QUOTES_PATCH):
            return ""
        new = NewQuote(run_id, mention.quote_seconds)
        made = await locally(QuoteActivities.quote_run, new)
        if made.question_id is None:
            return ""
        await self._deliver(made.question_id)
        until = workflow.now() + timedelta(seconds=mention.quote_seconds)
        while True:
            known = self._quote_answers
            wanted = AnswerWanted(run_id, is_last=workflow.now() >= until)
            concluded = await locally(QuoteActivities.conclude_quote, wanted)
            if not concluded.waits:
                return concluded.refusal
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda known=known: self._quote_answers > known,  # type: ignore[misc]
                    timeout=until - workflow.now(),
                )

    # --- the task and its conversation -----------------------------------------------------------

    async def _make_task(self, mention: MentionInput, repository_id: int) -> TaskAnswer:
        """Make the task, or hand the mention to the task that holds the thread."""
        new = NewTask(mention.mention_id, repository_id)
        while True:
            task = await with_slack(CodingActivities.create_task, new, OUTAGE)
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
        forwarded = await locally(CodingActivities.forward_follow_up, message)
        await self._deliver(forwarded.notice_id)
        if forwarded.run_id and not await self._refused_quote(mention, forwarded.run_id):
            await self._answer(mention, forwarded.run_id)

    async def _end_task(self, task_id: str, state: str) -> bool:
        """Close the task. If messages came at the last moment, take them up and return False."""
        ended = await locally(CodingActivities.end_task, TaskEnd(task_id, state))
        self._follow_ups.extend(each for each in ended.waiting if each not in self._follow_ups)
        return not ended.waiting

    def _signals(self) -> int:
        """Return how many signals came that make a paused run look again: messages and credits."""
        return len(self._follow_ups) + super()._signals()

    # --- the end ---------------------------------------------------------------------------------

    async def _close(self, mention: MentionInput, outcome: MentionOutcome) -> None:
        closing = Closing(mention.mention_id, outcome.ending, outcome.reason)
        await locally(ThreadActivities.close_mention, closing)

    async def _break_down(self, mention: MentionInput, outcome: MentionOutcome) -> None:
        closing = Closing(mention.mention_id, outcome.ending, outcome.reason)
        broken = await locally(ThreadActivities.break_down, closing)
        await self._deliver(broken.notice_id)
