"""Activities that ask the gate. Temporal repeats them until the gate can answer."""

from dataclasses import dataclass

from temporalio import activity

from coding_tasks import runs
from coding_tasks.models import TaskRun
from quota import gate
from workflows import denials
from workflows.activities import rows
from workflows.mention_types import SAID_ALREADY, STOPPED, MentionRef
from workflows.stopping import work


@dataclass(frozen=True)
class GateAnswer:
    """Whether a mention may go on, and if not, its denial."""

    denial_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class PausedRun:
    """A run that waits for credits."""

    run_id: str


@dataclass(frozen=True)
class CreditCheck:
    """Whether there are credits to go on with."""

    available: bool


class QuotaActivities:
    """Questions to the gate. Both `QuotaUnknown` and a database that is down are retried."""

    @activity.defn
    def check_quota(self, about: MentionRef) -> GateAnswer:
        """Ask the gate before anything else is done for a mention; claim its denial if refused."""
        mention = rows.mention(about.mention_id)
        if work.was_stopped(mention):
            return GateAnswer(None, STOPPED)
        author = mention.workspace.distinct_id(mention.user_id)
        verdict = gate.check(mention.project, to_start=True, distinct_id=author)
        if not verdict.limited:
            denial = denials.claimed_for(mention)  # by an earlier attempt or the webhook
            return GateAnswer(str(denial.pk), SAID_ALREADY) if denial else GateAnswer()
        denial = denials.claim(mention, verdict)
        return GateAnswer(str(denial.pk) if denial else None, verdict.reason or verdict.state)

    @activity.defn
    def check_credits(self, paused: PausedRun) -> CreditCheck:
        """Return whether a paused run may go on, without posting anything.

        A stopped run may, because it ends as soon as it tries.
        """
        run = rows.run(paused.run_id)
        if run.state == TaskRun.State.STOPPED:
            return CreditCheck(available=True)
        available = not runs.verdict_on(run).limited
        if not available:
            runs.stay_paused(run)
        return CreditCheck(available)
