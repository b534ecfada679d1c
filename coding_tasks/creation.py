"""Create tasks and runs in threads, if there are credits for them."""

from collections.abc import Callable
from dataclasses import dataclass

from django.db import IntegrityError, transaction

from coding_tasks.agent_choice import READER, known_agents
from coding_tasks.agents.choice import choose_agent
from coding_tasks.models import CodingTask, ProjectAgent, Repository, TaskRun
from coding_tasks.threads import lock_active_task
from projects.models import Project, SlackWorkspace
from quota import gate
from quota.gate import Verdict
from quota.resources import AI_CREDITS

_LONGEST_TITLE = 200


@dataclass(frozen=True)
class Request:
    """What a person asked for, and where."""

    workspace: SlackWorkspace
    channel_id: str
    thread_ts: str
    message_ts: str
    user_id: str
    text: str


class Refused(Exception):
    """There are no credits to start the work."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class ThreadTaken(Exception):
    """The thread already has an active task, to which the request belongs."""


def create_task(
    request: Request,
    repository: Repository | None,
    workflow_id: str,
    *,
    check: Callable[[], None],
) -> TaskRun:
    """Return the first run of the workflow's task, creating both if needed.

    Without a repository, the task gets the agent that only reads, whichever was asked for.

    `check` is called in the transaction that creates them. If it raises, neither is created.
    Raises `Refused`, `ThreadTaken`, and `quota.gate.QuotaUnknown` if it is unknown whether there
    are credits.
    """
    made = TaskRun.objects.filter(task__workflow_id=workflow_id, message_ts=request.message_ts)
    if run := made.first():
        return run
    author = request.workspace.distinct_id(request.user_id)
    project = request.workspace.project_in(request.channel_id)
    require_credits(project, AI_CREDITS, author)
    chosen = choose_agent(request.text, known_agents())
    agent = chosen.agent or ProjectAgent.of(project).agent
    try:
        with transaction.atomic():
            task = CodingTask.objects.create(
                project=project,
                repository=repository,
                workspace=request.workspace,
                channel_id=request.channel_id,
                thread_ts=request.thread_ts,
                owner_slack_user_id=request.user_id,
                title=title_of(chosen.request or request.text),
                workflow_id=workflow_id,
                agent=agent if repository else READER,
            )
            run = add_run(task, request.message_ts, chosen.request or request.text)
            check()
            return run
    except IntegrityError:
        with transaction.atomic():
            taken = lock_active_task(request.workspace, request.channel_id, request.thread_ts)
        if taken is None or taken.workflow_id == workflow_id:
            raise
        raise ThreadTaken from None


def reopen_task(
    task: CodingTask, request: Request, workflow_id: str, *, check: Callable[[], None]
) -> TaskRun:
    """Return the run with which a workflow goes on with a task that has ended, creating it if new.

    From then on the task belongs to this workflow. The branch, the conversation and the earlier
    turns are still those of the task. What the run uses counts as used by the request's author.
    `check` and exceptions are as in `create_task`.
    """
    if made := TaskRun.objects.filter(task=task, message_ts=request.message_ts).first():
        return made
    author = request.workspace.distinct_id(request.user_id)
    require_credits(task.project, task.resource, author)
    try:
        with transaction.atomic():
            locked = CodingTask.objects.select_for_update().get(pk=task.pk)
            if locked.state == CodingTask.State.ACTIVE:
                raise ThreadTaken
            locked.state, locked.finished_at = CodingTask.State.ACTIVE, None
            locked.workflow_id = workflow_id
            locked.save(update_fields=["state", "finished_at", "workflow_id"])
            run = add_run(locked, request.message_ts, request.text, request.user_id)
            check()
            return run
    except IntegrityError:  # the thread has another task by now
        raise ThreadTaken from None


def add_run(task: CodingTask, message_ts: str, text: str, author: str = "") -> TaskRun:
    """Return the task's run for a message, creating it if needed.

    `author` is the Slack user who wrote the message, by default the task's owner.
    """
    other = "" if author == task.owner_slack_user_id else author
    run, _ = TaskRun.objects.get_or_create(
        task=task,
        message_ts=message_ts,
        defaults={"request": text, "author_slack_user_id": other},
    )
    return run


def require_credits(project: Project, resource: str, distinct_id: str) -> None:
    """Raise `Refused` if the project, which pays, may not start work for a user.

    Raises `quota.gate.QuotaUnknown` if it is unknown whether there are credits.
    """
    verdict = gate.check(project, resource, to_start=True, distinct_id=distinct_id)
    if verdict.limited:
        raise Refused(verdict)


def title_of(text: str) -> str:
    """Return the title of a task: the first line of its request."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first[:_LONGEST_TITLE] or "(no text)"
