"""Activities for coding tasks: create one, forward follow-ups, run the agent, end the task."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from django.db import transaction
from temporalio import activity
from temporalio.exceptions import ApplicationError

from coding_tasks import creation, runs, threads
from coding_tasks.creation import Refused, Request, ThreadTaken
from coding_tasks.failures import OutOfCredits
from coding_tasks.models import CodingTask, Repository, TaskRun
from coding_tasks.reading.assignments import Agent
from coding_tasks.reading.checkouts import Checkouts
from coding_tasks.turns import agent_runs
from coding_tasks.turns.agent_runs import AgentRuns
from coding_tasks.turns.prompts import going_on
from workflows import denials, notices, participants, wording
from workflows.activities import refunds, rows
from workflows.activities.outages import report_failures, report_outages
from workflows.mention_types import (
    ANOTHERS_TASK,
    NO_REPOSITORY,
    OUT_OF_CREDITS,
    SAID_ALREADY,
    STOPPED,
    out_of_credits,
)
from workflows.messages import edits
from workflows.models import ERASED, FollowUp, Mention, Notice
from workflows.requests import all_that_was_asked, is_go_on, request_text, texts_of
from workflows.results import diffs, run_notices
from workflows.slack import thread_context
from workflows.slack.client import client_for, failure_of
from workflows.stopping import work

log = structlog.get_logger(__name__)

REACTION = "eyes"
PATIENCE = 3
"""The longest wait in seconds, if Slack asks for one, before an optional call is repeated."""


@dataclass(frozen=True)
class NewTask:
    """A task to make. `gone` is a workflow that held the thread's task and no longer runs."""

    mention_id: str
    repository_id: int
    gone: str = ""


@dataclass(frozen=True)
class TaskAnswer:
    """The new task and its first run, or the notice of a refusal, or the thread's present task."""

    task_id: str = ""
    run_id: str = ""
    notice_id: str | None = None
    reason: str = ""
    holder: str = ""
    """The workflow of the thread's present task. The mention was recorded as its follow-up."""
    follow_up_id: str = ""


@dataclass(frozen=True)
class ForwardedMessage:
    """A follow-up to hand to a task."""

    task_id: str
    follow_up_id: str


@dataclass(frozen=True)
class ForwardAnswer:
    """The run that answers the follow-up, or its denial. Neither if the follow-up has ended."""

    run_id: str = ""
    notice_id: str | None = None


@dataclass(frozen=True)
class RunRef:
    """A run to perform."""

    run_id: str


@dataclass(frozen=True)
class RunAnswer:
    """The notice to deliver: the answer, or the denial of a run that is now paused.

    A task without a thread has no notice.
    """

    notice_id: str | None
    answered: bool


@dataclass(frozen=True)
class FailedRun:
    """A run to give up, and the type of its failure."""

    run_id: str
    failure: str


@dataclass(frozen=True)
class FailureAnswer:
    """The notice about the failure. None if a denial or a stop already told the thread.

    If `answered`, it is the notice of the answer: an attempt that seemed dead had stored one.
    """

    notice_id: str | None
    answered: bool = False


@dataclass(frozen=True)
class TaskEnd:
    """A task to close, and the state to close it in."""

    task_id: str
    state: str


@dataclass(frozen=True)
class TaskEnded:
    """The follow-ups that still wait. If there are any, the task is not closed."""

    waiting: tuple[str, ...] = ()


class CodingActivities:
    """Activities for coding tasks, with the agent and the checkouts that the worker passes in."""

    def __init__(self, agent: Agent, checkouts: Checkouts) -> None:
        self._agent = agent
        self._checkouts = checkouts

    @activity.defn
    def create_task(self, new: NewTask) -> TaskAnswer:
        """Create the task if there are credits for it, then show in Slack that work begins.

        If the thread has a task already, record the mention as a follow-up of that task.
        """
        mention = rows.mention(new.mention_id)
        project = mention.project
        repository = None
        if new.repository_id != NO_REPOSITORY:
            repository = Repository.objects.get(pk=new.repository_id, project=project)
        if denial := denials.claimed_for(mention):  # an earlier attempt was refused
            return TaskAnswer(notice_id=str(denial.pk), reason=SAID_ALREADY)
        if work.was_stopped(mention):
            return TaskAnswer(reason=STOPPED)
        if new.gone:
            threads.abandon(new.gone)
        identifier = activity.info().workflow_id or ""
        request = Request(
            workspace=mention.workspace,
            channel_id=mention.channel_id,
            thread_ts=mention.thread_ts,
            message_ts=mention.ts,
            user_id=mention.user_id,
            text=_asked_for(mention),
        )
        try:
            if old := _run_to_reopen(mention):
                run = creation.reopen_task(
                    old.task,
                    replace(request, text=_asked_again(mention, old)),
                    identifier,
                    check=lambda: work.require_not_stopped(mention),
                )
            else:
                run = creation.create_task(
                    request,
                    repository,
                    identifier,
                    check=lambda: work.require_not_stopped(mention),
                )
        except Refused as refused:
            denial = denials.claim(mention, refused.verdict)
            reason = out_of_credits(refused.verdict.reason)
            return TaskAnswer(notice_id=str(denial.pk) if denial else None, reason=reason)
        except ThreadTaken:
            return _join(mention)
        except work.MentionStopped:
            return TaskAnswer(reason=STOPPED)
        _announce(mention, run.task)
        return TaskAnswer(task_id=str(run.task_id), run_id=str(run.pk))

    @activity.defn
    def forward_follow_up(self, message: ForwardedMessage) -> ForwardAnswer:
        """Create a run for a follow-up if there are credits for it; if not, claim its denial."""
        task = CodingTask.objects.select_related("project").get(pk=message.task_id)
        if task.state == CodingTask.State.STOPPED:
            return ForwardAnswer()
        follow_up = rows.follow_up(message.follow_up_id)
        if follow_up.state in (FollowUp.State.REFUSED, FollowUp.State.DROPPED):
            return ForwardAnswer()
        if follow_up.state != FollowUp.State.HANDLED:
            try:
                author = follow_up.workspace.distinct_id(follow_up.user_id)
                creation.require_credits(task.project, task.resource, author)
            except Refused as refused:
                return _refuse(follow_up, refused)
        with transaction.atomic():
            # The lock keeps a task that is being stopped from getting another run.
            task = CodingTask.objects.select_for_update().get(pk=task.pk)
            if task.state == CodingTask.State.STOPPED or not _is_ours(task):
                return ForwardAnswer()
            is_new = follow_up.state != FollowUp.State.HANDLED
            if is_new and not task.accepts(follow_up.user_id):
                participants.drop(follow_up)
                return ForwardAnswer()
            text = request_text(follow_up)
            run = creation.add_run(task, follow_up.ts, text, follow_up.user_id)
            FollowUp.objects.filter(pk=follow_up.pk).update(state=FollowUp.State.HANDLED)
        if run.state == TaskRun.State.FAILED:  # a repeated signal: the thread was told
            return ForwardAnswer()
        return ForwardAnswer(run_id=str(run.pk))

    @activity.defn
    @report_outages()
    def run_agent(self, ref: RunRef) -> RunAnswer:
        """Have the agent perform a run, and claim its answer or, if credits ran out, its denial.

        Fails if there is no answer; the failure says whether another attempt can help. If the work
        has to wait for the gateway, for credits held by other calls, or for the database
        (`STORES_OUT`), the activity fails without further attempts, and the workflow waits. An
        answer that already exists is kept until the database is back.
        """
        run = rows.run_to_perform(ref.run_id)
        try:
            with report_failures():
                run = runs.perform(
                    run, self._checkouts, self._agent, lambda: thread_context.material_of(run)
                )
        except OutOfCredits as refusal:
            return RunAnswer(run_notices.claim_denial(run, refusal), answered=False)
        return RunAnswer(run_notices.claim_answer(run), answered=True)

    @activity.defn
    def fail_run(self, failed: FailedRun) -> FailureAnswer:
        """Record that a run has no answer, and claim the message that says why.

        If the failure is ours, give back what the run cost. If the last attempt died just after it
        stored a paid answer, claim that answer instead.
        """
        run = rows.run(failed.run_id)
        ours = refunds.is_ours(failed.failure)
        runs.fail(run, failed.failure, ours=ours)
        if run.task.needs_sandbox:
            AgentRuns.from_settings().forget(run)
        run.refresh_from_db(fields=["state", "answer"])
        if run.state == TaskRun.State.SUCCEEDED:
            is_unpublished = ours and agent_runs.is_left_unpublished(run)
            if is_unpublished:
                runs.give_back(run, failed.failure)
                agent_runs.note(run, wording.not_pushed_by_our_fault())
            answer = run_notices.claim_answer(run)
            if is_unpublished and (diff := diffs.claim(run)):
                notices.send_soon(diff)
            return FailureAnswer(answer, answered=True)
        if run.state == TaskRun.State.STOPPED or failed.failure == OUT_OF_CREDITS:
            return FailureAnswer(None)
        return FailureAnswer(run_notices.claim_failure(run, failed.failure))

    @activity.defn
    def end_task(self, end: TaskEnd) -> TaskEnded:
        """Close the task, unless a message for it was recorded at the last moment."""
        with transaction.atomic():
            task = CodingTask.objects.select_for_update().get(pk=end.task_id)
            if not _is_ours(task):
                return TaskEnded()
            waiting = FollowUp.objects.filter(
                workflow_id=task.workflow_id,
                state__in=FollowUp.WAITING,
            ).order_by("ts")
            ids = tuple(str(pk) for pk in waiting.values_list("pk", flat=True))
            if not ids:
                runs.finish_task(task, end.state)
        return TaskEnded(ids)


def _is_ours(task: CodingTask) -> bool:
    """Return whether the task still belongs to this workflow. A later one may have taken it."""
    return task.workflow_id == activity.info().workflow_id


def _run_to_reopen(mention: Mention) -> TaskRun | None:
    """Return the run whose task the mention continues, or None if it begins a task.

    A failed first run leaves nothing to continue, so the mention begins a task, as a reply would.
    It also begins one if its author may no longer write to the old task, or if the workspace now
    belongs to another organization, because the earlier organization would pay.
    """
    run = mention.repeats
    if run is None or run.request == ERASED or not run.task.accepts(mention.user_id):
        return None
    if run.task.project.organization_id != mention.project.organization_id:
        return None
    is_first = not run.task.runs.filter(created_at__lt=run.created_at).exists()
    return None if is_first and not mention.goes_on else run


def _asked_for(mention: Mention) -> str:
    """Return the request for the agent of a new task."""
    if mention.goes_on and mention.repeats:  # the author may not reopen the task, but continues it
        return _asked_again(mention, mention.repeats)
    return all_that_was_asked(mention)


def _asked_again(mention: Mention, old: TaskRun) -> str:
    """Return the earlier request, followed by what the author wrote since."""
    asked = going_on(old.request) if mention.goes_on else old.request
    if mention.is_click or is_go_on(mention.text):
        return asked
    return f"{asked}\n\n{request_text(mention)}"


def _join(mention: Mention) -> TaskAnswer:
    """Record the mention as a follow-up of the thread's task, if the task takes it."""
    with transaction.atomic():
        task = threads.lock_active_task(mention.workspace, mention.channel_id, mention.thread_ts)
        if task is None:
            raise ApplicationError("the thread became free just now", type="ThreadChanged")
        if work.was_stopped(mention):
            return TaskAnswer(reason=STOPPED)
        if not task.accepts(mention.user_id):
            notice = participants.claim_not_your_task(mention, task)
            return TaskAnswer(notice_id=str(notice.pk), reason=ANOTHERS_TASK)
        follow_up, _ = FollowUp.objects.get_or_create(
            workspace=mention.workspace,
            channel_id=mention.channel_id,
            ts=mention.ts,
            defaults={
                "thread_ts": mention.thread_ts,
                "user_id": mention.user_id,
                "text": mention.text or "\n\n".join(texts_of(mention)),
                "addressed": True,
                "workflow_id": task.workflow_id,
            },
        )
        if follow_up.workflow_id != task.workflow_id:  # it had joined an earlier task
            FollowUp.objects.filter(pk=follow_up.pk).update(
                workflow_id=task.workflow_id, state=FollowUp.State.RECEIVED, outcome=""
            )
    return TaskAnswer(holder=task.workflow_id, follow_up_id=str(follow_up.pk))


def _refuse(follow_up: FollowUp, refused: Refused) -> ForwardAnswer:
    with transaction.atomic():
        FollowUp.objects.filter(pk=follow_up.pk).update(
            state=FollowUp.State.REFUSED, outcome=out_of_credits(refused.verdict.reason)
        )
        denial = denials.claim(follow_up, refused.verdict)
    return ForwardAnswer(notice_id=str(denial.pk) if denial else None)


def _announce(mention: Mention, task: CodingTask) -> None:
    """React to the mention, store a link to it, and replace the picker with the choice."""

    def react() -> None:
        client_for(mention.workspace).reactions_add(
            channel=mention.channel_id, timestamp=mention.ts, name=REACTION
        )

    def store_link() -> None:
        link = client_for(mention.workspace).chat_getPermalink(
            channel=mention.channel_id, message_ts=mention.ts
        )
        CodingTask.objects.filter(pk=task.pk).update(permalink=str(link["permalink"])[:500])

    def replace_picker() -> None:
        picker = mention.notices.filter(kind=Notice.Kind.PICKER).exclude(message_ts="").first()
        if picker is not None:
            edits.revise(picker, wording.picker_chosen(task.repository_name))
            notices.deliver(picker)

    if not mention.is_click:  # a click has no message to react to
        for decorate in (react, store_link):
            _try_twice(decorate)
    replace_picker()


def _try_twice(do: Callable[[], None]) -> None:
    """Make an optional call. Repeat it once if Slack asks to wait a moment."""
    for is_last in (False, True):
        try:
            do()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            wait = failure.retry_after
            if is_last or wait is None or wait > PATIENCE:
                log.info("slack refused an optional call", error=failure.error)
                return
            time.sleep(wait)
        else:
            return
