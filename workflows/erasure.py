"""Erase what somebody wrote, in Slack or over the API, and end the work on it.

The work ends silently, as if its author had stopped it. If Slack delivers the same messages again,
the erased rows keep them from starting anything.
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from coding_tasks import stopping
from coding_tasks.models import (
    AcceptedRequest,
    CodingTask,
    RunChange,
    TaskParticipant,
    TaskRun,
)
from coding_tasks.publishing.branches import erase_changes
from coding_tasks.turns import agent_runs
from projects.models import SlackWorkspace, User
from projects.slack import names as slack_names
from workflows import closing
from workflows.agent_sessions import showing
from workflows.credit_requests import resuming
from workflows.models import ERASED, FollowUp, HomeTab, Mention, Notice, ThreadReply
from workflows.temporal import client

_WHY = "erased"


@dataclass(frozen=True)
class Erased:
    """How many rows were erased."""

    mentions: int
    follow_ups: int
    runs: int


@transaction.atomic
def erase(team: str, user_id: str) -> Erased:
    """Erase what a user wrote in a workspace, and the answers and changes. Rows and times stay.

    `team` is the id of the workspace, or of the organization for an organization-wide installation.
    """
    installed = SlackWorkspace.objects.filter(Q(team_id=team) | Q(team_id="", enterprise_id=team))
    workspaces = installed.values("pk")
    by_user = Q(workspace__in=workspaces, user_id=user_id)
    # First of all, because resuming a mention locks its request before the mention.
    resuming.drop(Mention.objects.filter(by_user))
    in_workspaces = CodingTask.objects.filter(workspace__in=workspaces)
    tasks = in_workspaces.filter(owner_slack_user_id=user_id)
    # What they asked for in other people's tasks. The tasks end, the other turns stay.
    turns = TaskRun.objects.filter(task__in=in_workspaces, author_slack_user_id=user_id)
    joined = in_workspaces.filter(pk__in=list(turns.values_list("task_id", flat=True)))
    _end_work(tasks, Mention.objects.filter(by_user), FollowUp.objects.filter(by_user))
    _end_work(joined, Mention.objects.none(), FollowUp.objects.none())
    TaskParticipant.objects.filter(
        task__in=in_workspaces, slack_user_id=user_id, removed_at=None
    ).update(removed_at=timezone.now(), removed_by=_WHY)
    unsent = Q(state__in=Notice.UNSENT)
    slack_names.erase(installed, user_id)
    ThreadReply.objects.filter(by_user).update(text=ERASED, decided_at=timezone.now())
    erased = Erased(
        mentions=Mention.objects.filter(by_user).update(text=ERASED),
        follow_ups=FollowUp.objects.filter(by_user).update(text=ERASED),
        runs=_erase_tasks(tasks) + _erase_turns(turns),
    )
    # Answers are notices too. They are erased last, because one is claimed under its run's lock.
    Notice.objects.filter(by_user, unsent).update(state=Notice.State.GIVEN_UP, error=_WHY)
    Notice.objects.filter(by_user).update(text=ERASED, blocks=[])
    # Requests for credits quote what was asked, in notices to those who decide.
    quotes = Q(
        kind=Notice.Kind.CREDIT_REQUEST, mention__in=Mention.objects.filter(by_user).values("pk")
    )
    Notice.objects.filter(quotes, unsent).update(state=Notice.State.GIVEN_UP, error=_WHY)
    Notice.objects.filter(quotes).update(text=ERASED, blocks=[])
    # Slack still shows the titles of tasks in sessions, and in the Home tab.
    showing.erase(tasks)
    HomeTab.objects.filter(by_user).update(due_at=timezone.now(), revision=F("revision") + 1)
    return erased


@transaction.atomic
def erase_user(user: User) -> int:
    """Erase what a user asked for over the API, with answers and changes. Rows and times stay.

    The tasks are stopped, and no longer name the user. Returns how many runs were erased.
    """
    ids = list(CodingTask.objects.filter(user=user).values_list("pk", flat=True))
    tasks = CodingTask.objects.filter(pk__in=ids)
    _end_work(tasks, Mention.objects.none(), FollowUp.objects.none())
    # A request that is sent again must not start anything.
    AcceptedRequest.objects.filter(run__task__in=ids).update(body_digest="")
    erased = _erase_tasks(tasks)
    tasks.update(state=CodingTask.State.STOPPED, user=None)
    return erased


def _erase_tasks(tasks: QuerySet[CodingTask]) -> int:
    """Erase the texts of tasks, and return how many runs they have."""
    erased = TaskRun.objects.filter(task__in=tasks).update(request=ERASED, answer=ERASED)
    erase_changes(tasks)
    agent_runs.erase(tasks)
    tasks.update(title=ERASED)
    return erased


def _erase_turns(turns: QuerySet[TaskRun]) -> int:
    """Erase single turns of tasks, and return how many there are."""
    ids = list(turns.values_list("pk", flat=True))
    runs = TaskRun.objects.filter(pk__in=ids)
    RunChange.objects.filter(run__in=ids).delete()
    agent_runs.erase_turns(runs)
    return runs.update(request=ERASED, answer=ERASED)


def _end_work(
    tasks: QuerySet[CodingTask], mentions: QuerySet[Mention], follow_ups: QuerySet[FollowUp]
) -> None:
    """End the tasks, even idle ones, whose next run would send a model what was said before."""
    waiting = dict(mentions.filter(state__in=Mention.OPEN).values_list("pk", "workflow_id"))
    for mention_id in waiting:
        closing.close(mention_id, Mention.State.STOPPED, _WHY)
    # From here on, no task can be created for these mentions.
    active = dict(tasks.filter(state=CodingTask.State.ACTIVE).values_list("pk", "workflow_id"))
    for task_id in active:
        stopping.stop(task_id, _WHY)
    workflows = {*waiting.values(), *active.values()} - {""}
    follow_ups.filter(state__in=FollowUp.WAITING).update(state=FollowUp.State.DROPPED, outcome=_WHY)
    transaction.on_commit(lambda: client.cancel_all(workflows))
