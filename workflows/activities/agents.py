"""Activities around an agent's turn: prepare it, store its change, and publish the change."""

from dataclasses import dataclass

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from coding_tasks import runs
from coding_tasks.failures import CheckoutFailed, OutOfCredits, PublishingFailed
from coding_tasks.models import TaskRun
from coding_tasks.publishing.outcomes import ConfirmationNeeded
from coding_tasks.turns import agent_runs
from coding_tasks.turns.agent_runs import AgentRuns
from coding_tasks.turns.places import take_place
from workflows import notices
from workflows.activities import refunds, rows
from workflows.activities.coding import RunAnswer, RunRef
from workflows.activities.outages import report_failures, report_outages
from workflows.results import confirmations, diffs, left_files, run_notices
from workflows.slack import thread_context

log = structlog.get_logger(__name__)

LAST_PUBLISHING = 5
"""The last attempt at publishing. If it fails, the change is only stored."""


@dataclass(frozen=True)
class Prepared:
    """Whether an agent worker has to run the turn, and whether the run has an answer already.

    If it is `in_line`, it was not prepared, because all places of its project are taken.
    """

    in_sandbox: bool
    answered: bool = False
    in_line: bool = False


@dataclass(frozen=True)
class TurnRun:
    """A run whose turn ended, and the attempt that ended it."""

    run_id: str
    attempt: str


@dataclass(frozen=True)
class Collected:
    """Whether the run is now paused, and the denial if its task has a thread."""

    notice_id: str | None = None
    paused: bool = False


class AgentActivities:
    """Activities for turns in a sandbox, with the folders that the workers share."""

    def __init__(self, agent_runs: AgentRuns) -> None:
        self._runs = agent_runs

    @activity.defn
    @report_outages()
    def prepare_run(self, ref: RunRef) -> Prepared:
        """Begin the run and write its job, if its agent needs a sandbox and there is a place."""
        run = rows.run_to_perform(ref.run_id)
        if not run.task.needs_sandbox:
            return Prepared(in_sandbox=False)
        with report_failures():
            runs.require_not_ended(run)
            if run.state != TaskRun.State.SUCCEEDED and not take_place(run):
                run_notices.tell_in_line(run)
                return Prepared(in_sandbox=True, in_line=True)
            begun = self._runs.prepare(run, thread_context.material_of(run))
        return Prepared(in_sandbox=True, answered=not begun)

    @activity.defn
    @report_outages()
    def collect_run(self, turn: TurnRun) -> Collected:
        """Store what the agent made. Claim the denial if credits ran out."""
        run = rows.run(turn.run_id)
        try:
            with report_failures():
                self._runs.collect(run, turn.attempt)
        except OutOfCredits as refusal:
            return Collected(run_notices.claim_denial(run, refusal), paused=True)
        return Collected()

    @activity.defn
    @report_outages()
    def publish_run(self, ref: RunRef) -> RunAnswer:
        """Publish the run's change, if it made one, and claim the notice with its answer.

        A stop doesn't interrupt this, because the thread has to learn what was pushed.
        """
        with activity.shield_thread_cancel_exception():
            return self._publish_run(ref)

    def _publish_run(self, ref: RunRef) -> RunAnswer:
        run = rows.run(ref.run_id)
        attempt = activity.info().attempt
        outcome = None
        try:
            outcome = self._runs.publish(run, last_attempt=attempt >= LAST_PUBLISHING)
        except (PublishingFailed, CheckoutFailed) as failure:
            if attempt < LAST_PUBLISHING and not failure.permanent:
                raise ApplicationError(failure.summary, type=type(failure).__name__) from failure
            log.warning("a change was not published", run=ref.run_id, error=str(failure))
            agent_runs.note(run, f"Not pushed: {failure}.")
            if refunds.is_ours(type(failure).__name__):
                runs.give_back(run, type(failure).__name__)
        self._runs.forget(run)
        answer = run_notices.claim_answer(run)
        if isinstance(outcome, ConfirmationNeeded) and run.task.has_thread:
            notices.send_soon(confirmations.ask(run, outcome.reasons))
        elif diff := diffs.claim(run):
            notices.send_soon(diff)
        for file in left_files.claim(run):
            notices.send_soon(file)
        return RunAnswer(answer, answered=True)
