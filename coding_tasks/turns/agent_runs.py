"""Runs of agents in sandboxes: prepare a turn for an agent worker, and collect what it made."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self
from uuid import UUID

import structlog
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from coding_tasks import runs
from coding_tasks.agent_worker.exchange import Attempt, Exchange, NotInExchange
from coding_tasks.agent_worker.job import AgentJob, Kept, TurnResult
from coding_tasks.failures import (
    AcceptedCapReached,
    ChangeRefused,
    CheckoutFailed,
    OutOfCredits,
    ResultLost,
    RunFailure,
    RunGivenUp,
    RunStopped,
)
from coding_tasks.material import Material
from coding_tasks.models import CodingTask, RunChange, RunEvent, RunFile, TaskRun
from coding_tasks.outages import outlast_outage
from coding_tasks.publishing import publication
from coding_tasks.publishing.branches import branch_of
from coding_tasks.publishing.outcomes import (
    ConfirmationNeeded,
    KeptAsDiff,
    Outcome,
    Published,
    Rejected,
)
from coding_tasks.reading.assignments import trace_of
from coding_tasks.refusals import failure_of_refusal
from coding_tasks.repositories.changes import (
    MOST_PATCH,
    Change,
    ChangeRequest,
    Requester,
    commit_change,
)
from coding_tasks.repositories.mirrors import Base, Mirrors
from coding_tasks.repositories.remotes import Remote
from coding_tasks.repositories.shared_checkouts import SharedCheckout, SharedCheckouts
from coding_tasks.storable import storable
from coding_tasks.turns import output_files, transcripts
from coding_tasks.turns.prompts import prompt_of, shown_images
from coding_tasks.turns.shared_exchange import shared_exchange
from coding_tasks.turns.turn_answers import answer_of, is_run_cap
from projects.authentication.credentials import revoke_run_tokens

log = structlog.get_logger(__name__)

SECONDS = 1_500
"""How long an agent may work on one turn before it has to finish."""
TOKEN_LIFETIME = timedelta(hours=1)
"""Long enough to prepare a turn, to wait for an agent worker, and to run the turn."""
_UNUSED = timedelta(days=14)
_MOST_CHECKOUTS = 20_000_000_000
_KEPT_AFTER = timedelta(minutes=10)
"""How long the files of a run stay after its end, because an activity may still use them."""
_NOTHING = Material()
_CALLS = "coding_tasks.agent_runs.calls"
_MISSING = {
    Kept.WHOLE: "",
    Kept.PARTLY: "Files that cannot be read are not in the change.",
    Kept.TOO_BIG: "The change is not kept. "
    f"The change is larger than {MOST_PATCH // 1_000_000} MB.",
    Kept.LOST: "The change is not kept. It could not be taken out of the sandbox.",
}
"""What to say if a change could not be exported as a whole."""


@dataclass(frozen=True)
class AgentRuns:
    """The runs of agents, with the folders that this machine shares with the agent workers."""

    mirrors: Mirrors
    checkouts: SharedCheckouts
    exchange: Exchange

    @classmethod
    def from_settings(cls) -> Self:
        """Return the runs in the folders that the settings name."""
        # Only root can give files away. Others share their own user with the agent workers.
        uid = settings.SANDBOX_UID
        owner = (uid, uid) if os.geteuid() == 0 else None
        return cls(
            Mirrors.from_settings(),
            SharedCheckouts.from_settings(owner),
            shared_exchange(),
        )

    def prepare(self, run: TaskRun, material: Material = _NOTHING) -> bool:
        """Begin the run and write its job; return False if the run already has an answer.

        `material` is what the agent gets in addition to the request.
        Raises `CheckoutFailed`, `RunStopped` and `RunGivenUp`.
        """
        revoke_run_tokens(run.pk)  # an attempt that was believed dead may still make calls
        runs.give_back_lost_turn(run)
        began = timezone.now()
        token = runs.begin(run, TOKEN_LIFETIME)
        if token is None:
            return False
        task = run.task
        remote, base = publication.prepare(self.mirrors, task)
        base = self._base_of_unfinished(run, remote, base)
        shared = self.checkouts.provide(self.mirrors, remote, base, holder=str(run.pk))
        home = self.exchange.home(str(task.pk))
        session = task.session if home else ""
        model = task.model_to_use()
        images, note = shown_images(task.agent, model, material)
        job = AgentJob(
            tree=str(shared.path),
            repository=str(shared.path / ".git"),
            commit=base.commit,
            agent=task.agent,
            model=model,
            prompt=prompt_of(run, material.text, resumes=bool(session)),
            gateway_url=settings.GATEWAY_URL,
            product=task.product,
            token=token,
            trace_id=trace_of(task.workflow_id),
            session=session or None,
            home=str(home or ""),
            patch=str(self.exchange.unfinished_patch(str(run.pk)) or ""),
            seconds=SECONDS,
            call_key=salted_hmac(_CALLS, run.pk.hex, algorithm="sha256").hexdigest(),
            files=[file.name for file in material.files],
            images=images,
            note=note,
        )
        runs.mark_turn(run, began)
        files = {file.name: file.content for file in material.files}
        self.exchange.put_job(str(run.pk), job, files)
        try:
            runs.require_not_ended(run)
        except (RunStopped, RunGivenUp):
            self.forget(run)
            raise
        return True

    def collect(self, run: TaskRun, attempt_name: str) -> None:
        """Keep what the agent made: the change, the conversation, the transcript, the answer.

        A run that the gateway refused for lack of credits is paused, and its work so far is kept.
        But a run that reached a cap on runs ends, if it has anything to show.
        Raises `OutOfCredits`, `MustWait` and `RunFailure`.
        """
        task = run.task
        try:
            attempt = self.exchange.attempt(str(run.pk), attempt_name)
            result, patch, home = attempt.result(), attempt.patch(), attempt.home()
            job = self.exchange.job(str(run.pk))
        except NotInExchange as error:
            raise ResultLost(str(error)) from error
        runs.require_not_ended(run)
        runs.mark_collected(run)
        self.exchange.keep_home(str(task.pk), home)
        CodingTask.objects.filter(pk=task.pk).update(session=result.session)
        transcripts.keep(run, attempt.event_lines())
        failure = _refusal_of(result)
        capped = is_run_cap(failure) and bool(result.answer or result.said or patch)
        answered = isinstance(failure, RunFailure) and result.answer
        if failure is not None and not capped and not answered:
            self.exchange.keep_unfinished_patch(str(run.pk), patch)
            if isinstance(failure, OutOfCredits):
                runs.pause(run)
            else:
                revoke_run_tokens(run.pk)
            raise failure
        change, lost = self._commit(run, job, patch, result.kept)
        note = " ".join(filter(None, [job.note, _keep_files(run, attempt)]))
        accepted = capped and isinstance(failure, AcceptedCapReached)
        answer = answer_of(result, change, capped=capped, accepted=accepted, lost=lost, note=note)
        outlast_outage(lambda: runs.store(run, answer, used_all_accepted=accepted))
        runs.require_not_ended(run)

    def publish(
        self, run: TaskRun, *, confirmed: bool = False, last_attempt: bool = False
    ) -> Outcome | None:
        """Publish the run's change, if it made one. Calling this again does no harm.

        Raises `PublishingFailed` and `CheckoutFailed`.
        """
        if not hasattr(run, "change"):
            return None
        outcome = publication.publish(
            self.mirrors,
            run,
            thread_url=run.task.permalink,
            confirmed=confirmed,
            last_attempt=last_attempt,
        )
        note(run, _note(outcome))
        return outcome

    def tidy(self) -> None:
        """Remove what ended runs left, and what was not used for a long time."""
        self._forget_ended()
        RunFile.objects.filter(created_at__lt=timezone.now() - _UNUSED).delete()
        self.exchange.remove_leftovers(older_than=_UNUSED)
        self.checkouts.evict(older_than=_UNUSED, most_bytes=_MOST_CHECKOUTS)
        self.mirrors.remove_unused(older_than=_UNUSED)

    def forget(self, run: TaskRun) -> None:
        """Remove the job with its token, and let go of the checkout."""
        with suppress(NotInExchange):
            job = self.exchange.job(str(run.pk))
            self.checkouts.release(SharedCheckout(Path(job.tree), job.commit), str(run.pk))
        self.exchange.remove(str(run.pk))

    def _forget_ended(self) -> None:
        """Forget runs that were stopped or abandoned, because no activity ends those."""
        ended = TaskRun.objects.filter(
            pk__in=self.exchange.run_ids(), finished_at__lt=timezone.now() - _KEPT_AFTER
        )
        for run in ended.exclude(state__in=TaskRun.UNFINISHED):
            self.forget(run)

    def _base_of_unfinished(self, run: TaskRun, remote: Remote, base: Base) -> Base:
        """Return the commit at which the run's unfinished work began, or `base` if there is none.

        The work may not apply to a newer commit. If the old one is gone, `base` is tried anyway.
        """
        if self.exchange.unfinished_patch(str(run.pk)) is None:
            return base
        try:
            commit = self.exchange.job(str(run.pk)).commit
            if commit:
                self.mirrors.ensure(remote, commit)
        except (NotInExchange, CheckoutFailed) as error:
            log.warning("unfinished work begins at another commit", run=str(run.pk), why=str(error))
            return base
        return Base(commit, base.branch)

    def _commit(
        self, run: TaskRun, job: AgentJob, patch: bytes, kept: Kept
    ) -> tuple[Change | None, str]:
        """Commit the patch; return the change, and a sentence about what is missing from it."""
        task = run.task
        branch = branch_of(task)
        remote = publication.require_base(self.mirrors, task, job.commit)
        request = ChangeRequest(
            base=Base(job.commit, branch.base_branch),
            branch=branch.name,
            patch=patch,
            subject=task.title,
            requester=_requester(run),
            committed_at=run.created_at,
        )
        try:
            change = commit_change(self.mirrors, remote, request)
        except ChangeRefused as refused:
            log.warning("a change is refused", run=str(run.pk), error=str(refused))
            return None, f"The change is not kept. {refused}"
        if change is not None:
            publication.record_change(run, change)
        return change, _MISSING[kept]


def _keep_files(run: TaskRun, attempt: Attempt) -> str:
    """Keep the files that the agent left for a thread; return a note about refused ones."""
    if not run.task.has_thread:
        return ""
    try:
        lines = attempt.output()
    except NotInExchange as error:  # it matters less than the answer
        log.warning("an agent's files are lost", run=str(run.pk), error=str(error))
        return ""
    return output_files.keep(run.pk, lines)


def _requester(run: TaskRun) -> Requester:
    """Return who the commit of a run names."""
    task = run.task
    if task.has_thread:
        return Requester(run.asked_by)
    user = task.user
    if user is None:
        return Requester("a program")
    return Requester(user.get_full_name() or user.get_username(), user.email or "")


def note(run: TaskRun, text: str) -> None:
    """Record why the run's change is not pushed, or has no pull request."""
    RunChange.objects.filter(run=run).update(note=storable(text)[:500])


def is_left_unpublished(run: TaskRun) -> bool:
    """Return whether the run has a change that was not pushed, and no reason for that is noted."""
    return RunChange.objects.filter(run=run, pushed_at=None, note="").exists()


def _note(outcome: Outcome) -> str:
    match outcome:
        case Published():
            return outcome.note
        case KeptAsDiff() | Rejected():
            return f"Not pushed. {outcome.message}"
        case ConfirmationNeeded():
            return "Not pushed yet: " + " ".join(outcome.reasons)


def erase(tasks: QuerySet[CodingTask]) -> None:
    """Erase what agents said, did and remember in these tasks."""
    erase_turns(TaskRun.objects.filter(task__in=tasks))
    _forget_conversations(list(tasks.values_list("pk", flat=True)))


def erase_turns(turns: QuerySet[TaskRun]) -> None:
    """Erase what agents said and did in these turns, and what they remember of the tasks."""
    exchange = shared_exchange()
    for run_id in turns.values_list("pk", flat=True):
        exchange.remove(str(run_id))
    RunEvent.objects.filter(run__in=turns).delete()
    RunFile.objects.filter(run__in=turns).delete()
    _forget_conversations(list(turns.values_list("task_id", flat=True)))


def _forget_conversations(task_ids: Iterable[UUID]) -> None:
    for task_id in set(task_ids):
        shared_exchange().remove_home(str(task_id))
    CodingTask.objects.filter(pk__in=set(task_ids)).update(session="")


def _refusal_of(result: TurnResult) -> Exception | None:
    """Return what the refusal that ended the turn means, or None if no refusal ended it."""
    if result.complete or not result.refusal:
        return None
    return failure_of_refusal(result.refusal)
