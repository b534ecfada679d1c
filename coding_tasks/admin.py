"""Admin pages of repositories, tasks and runs, with the credits they used."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from billing.credits import display
from billing.reports.usage import (
    calls_of_task_runs,
    given_back_to_task_runs,
    usage_of_task_runs,
)
from coding_tasks.models import (
    ChannelDefault,
    CodingTask,
    ProjectAgent,
    Repository,
    RepositoryRule,
    RunChange,
    TaskBranch,
    TaskRun,
)
from coding_tasks.publishing import admin as publishing_admin
from coding_tasks.publishing import changes_admin
from coding_tasks.turns.transcripts import transcript_of
from projects.admin_parts.completed_list import CompletedList
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.permitted_parts import PermittedParts

# Importing it registers its pages.
__all__ = ["publishing_admin"]

_CALL = ("time (UTC)", "model", "input tokens", "output tokens", "credits")
_TURN = ("message", "state", "request", "answer", "credits")


def temporal_link(task: CodingTask) -> SafeString:
    """Return a link to the task's workflow in Temporal's UI."""
    url = (
        f"{settings.TEMPORAL_UI_URL}/namespaces/{quote(settings.TEMPORAL_NAMESPACE, safe='')}"
        f"/workflows/{quote(task.workflow_id, safe='')}"
    )
    return format_html('<a href="{}">{}</a>', url, task.workflow_id)


@admin.display(description="credits")
def credits_used(row: Any) -> str:
    """Return the credits used by the row, which the list has looked up for all rows at once.

    Credits that were given back don't count as used. They are shown beside it.
    """
    used = display(row.used_micro)
    given_back = row.given_back_micro
    return f"{used} ({display(given_back)} given back)" if given_back else used


class _RunsWithCredits(CompletedList):
    """Looks up the credits of all the runs of a page at once."""

    def complete(self, rows: Sequence[Any]) -> None:
        """Add the credits."""
        _add_credits_of_runs(rows)


class _TasksWithCredits(CompletedList):
    """Looks up the credits of all the tasks of a page at once."""

    def complete(self, rows: Sequence[Any]) -> None:
        """Add the credits."""
        _add_credits_of_tasks(rows)


def _add_credits_of_runs(runs: Iterable[Any]) -> None:
    used = usage_of_task_runs(run.pk for run in runs)
    given_back = given_back_to_task_runs((run.pk for run in runs), with_attempts=True)
    for run in runs:
        run.used_micro = used.get(run.pk, 0)
        run.given_back_micro = given_back.get(run.pk, 0)


def _add_credits_of_tasks(tasks: Iterable[Any]) -> None:
    runs = dict(TaskRun.objects.filter(task__in=list(tasks)).values_list("pk", "task_id"))
    used: Counter[Any] = Counter()
    for run_id, micro in usage_of_task_runs(runs).items():
        used[runs[run_id]] += micro
    given_back: Counter[Any] = Counter()
    for run_id, micro in given_back_to_task_runs(runs, with_attempts=True).items():
        given_back[runs[run_id]] += micro
    for task in tasks:
        task.used_micro = used[task.pk]
        task.given_back_micro = given_back[task.pk]


class _ReadOnly(NamedSearch, PermittedParts, admin.ModelAdmin[Any]):
    """Records of what happened. They cannot be changed here."""

    needed = {
        credits_used: ("billing.view_usageevent",),
        "credits": ("billing.view_usageevent",),
        "calls": ("billing.view_usageevent",),
        "turns": ("coding_tasks.view_taskrun", "billing.view_usageevent"),
    }

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Return False: mentions and the API make tasks."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: history is not edited."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: `erase_slack_user` and `erase_user` erase what people wrote."""
        return False


@admin.register(Repository)
class RepositoryAdmin(NamedSearch, admin.ModelAdmin[Repository]):
    """The repositories that coding tasks may work on."""

    list_display = ["full_name", "project", "organization", "clone_url", "credential"]
    list_filter = ["project__organization"]
    list_select_related = ["project__organization", "credential"]
    search_fields = ["full_name", "project__name", "project__organization__name"]
    search_ids = ["clone_url__icontains"]
    named_by = ["full_name"]
    autocomplete_fields = ["project", "credential"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Repository]:
        """Return the repositories without secrets, which no page needs to decrypt."""
        return super().get_queryset(request).defer("credential__secret")

    @admin.display(ordering="project__organization__name")
    def organization(self, repository: Repository) -> str:
        """Return the name of the organization that owns it."""
        return repository.project.organization.name


@admin.register(ProjectAgent)
class ProjectAgentAdmin(NamedSearch, admin.ModelAdmin[ProjectAgent]):
    """The agents that do the coding tasks of projects."""

    list_display = ["project", "organization", "agent", "model"]
    list_select_related = ["project__organization"]
    search_fields = ["project__name", "project__organization__name", "agent"]
    named_by = ["project__name"]
    autocomplete_fields = ["project"]

    @admin.display(ordering="project__organization__name")
    def organization(self, choice: ProjectAgent) -> str:
        """Return the name of the organization that owns the project."""
        return choice.project.organization.name


@admin.register(ChannelDefault)
class ChannelDefaultAdmin(NamedSearch, admin.ModelAdmin[ChannelDefault]):
    """The repository that a channel's mentions are about unless they say otherwise."""

    list_display = ["channel_id", "workspace", "repository"]
    list_select_related = ["workspace", "repository"]
    search_fields = ["workspace__name", "repository__full_name"]
    search_ids = ["channel_id"]
    autocomplete_fields = ["workspace", "repository"]


@admin.register(RepositoryRule)
class RepositoryRuleAdmin(NamedSearch, admin.ModelAdmin[RepositoryRule]):
    """Words in requests, and the repositories that they are about, in the order that decides."""

    list_display = ["keyword", "position", "project", "repository"]
    list_editable = ["position"]
    list_select_related = ["project__organization", "repository"]
    search_fields = ["keyword", "repository__full_name", "project__name"]
    named_by = ["keyword"]
    autocomplete_fields = ["project", "repository"]


@admin.register(CodingTask)
class CodingTaskAdmin(_ReadOnly):
    """Coding tasks, each with its turns."""

    list_display = [
        "title",
        "state",
        "repository",
        "project",
        "origin",
        "owner",
        credits_used,
        "workflow",
        "thread",
        "created_at",
        "finished_at",
    ]
    list_filter = ["state", "origin", "project__organization", "created_at"]
    list_select_related = ["repository", "project__organization", "user"]
    search_fields = ["title", "user__username", "repository__full_name", "project__name"]
    search_ids = ["id", "workflow_id", "thread_ts", "channel_id", "owner_slack_user_id"]
    readonly_fields = fields = (
        "title",
        "state",
        "project",
        "repository",
        "origin",
        "workspace",
        "thread",
        "owner",
        "agent",
        "model",
        "published",
        "workflow",
        "created_at",
        "finished_at",
        "turns",
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that looks up credits."""
        return _TasksWithCredits

    @admin.display(description="owner")
    def owner(self, task: CodingTask) -> str:
        """Return who asked for it: the id of a Slack user, a username, or "a program"."""
        if task.has_thread:
            return task.owner_slack_user_id
        return task.user.get_username() if task.user else "a program"

    def thread(self, task: CodingTask) -> SafeString | str:
        """Return a link to the message in Slack that began the task."""
        if not task.has_thread:
            return "-"
        name = f"{task.channel_id}/{task.thread_ts}"
        return format_html('<a href="{}">{}</a>', task.permalink, name) if task.permalink else name

    def workflow(self, task: CodingTask) -> SafeString:
        """Return a link to the task's workflow."""
        return temporal_link(task)

    @admin.display(description="branch")
    def published(self, task: CodingTask) -> SafeString | str:
        """Return the task's branch, with a link to its pull request."""
        branch = TaskBranch.objects.filter(task=task).first()
        if branch is None:
            return "-"
        url = reverse("admin:coding_tasks_taskbranch_change", args=[branch.pk])
        link = format_html('<a href="{}">{}</a>', url, branch.name)
        if not branch.pull_request:
            return link
        return format_html('{} (<a href="{}">pull request</a>)', link, branch.pull_request)

    def turns(self, task: CodingTask) -> SafeString:
        """Return a table of the task's runs, in order, with their credits."""
        runs = list(task.runs.order_by("created_at"))
        _add_credits_of_runs(runs)
        rows = format_html_join(
            "",
            '<tr><td><a href="{}">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>',
            (
                (
                    reverse("admin:coding_tasks_taskrun_change", args=[run.pk]),
                    run.message_ts,
                    run.get_state_display(),
                    run.request,
                    run.answer or run.error,
                    credits_used(run),
                )
                for run in runs
            ),
        )
        names = format_html_join("", "<th>{}</th>", ((name,) for name in _TURN))
        return format_html(
            "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", names, rows
        )


@admin.register(TaskRun)
class TaskRunAdmin(_ReadOnly):
    """Runs, each with one request and its answer."""

    list_display = [
        "task",
        "message_ts",
        "state",
        "error",
        credits_used,
        "workflow",
        "created_at",
        "finished_at",
    ]
    list_filter = ["state", "task__project__organization", "created_at"]
    list_select_related = ["task"]
    search_fields = ["task__title", "error"]
    search_ids = ["id", "task__workflow_id", "message_ts"]
    readonly_fields = fields = (
        "task",
        "message_ts",
        "author_slack_user_id",
        "state",
        "request",
        "answer",
        "error",
        "credits",
        "accepted",
        "calls",
        "workflow",
        "created_at",
        "started_at",
        "finished_at",
        "transcript",
        "change",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskRun]:
        """Return the runs without the texts that only a run's own page shows."""
        return super().get_queryset(request).defer("answer", "request")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that looks up credits."""
        return _RunsWithCredits

    def workflow(self, run: TaskRun) -> SafeString:
        """Return a link to the workflow of the run's task."""
        return temporal_link(run.task)

    def credits(self, run: TaskRun) -> str:
        """Return the credits that the run used, and what was given back."""
        _add_credits_of_runs([run])
        return credits_used(run)

    @admin.display(description="accepted credits")
    def accepted(self, run: TaskRun) -> str:
        """Return the accepted number, the most credits that it may cost."""
        return display(run.accepted_micro)

    def calls(self, run: TaskRun) -> SafeString | str:
        """Return a table of the calls of models that the run made, with their credits."""
        found = calls_of_task_runs([run.pk]).get(run.pk, [])
        if not found:
            return "-"
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (
                    f"{call.occurred_at:%H:%M:%S}",
                    call.model,
                    call.input_tokens,
                    call.output_tokens,
                    display(call.credits_micro),
                )
                for call in found
            ),
        )
        names = format_html_join("", "<th>{}</th>", ((name,) for name in _CALL))
        return format_html(
            "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", names, rows
        )

    def transcript(self, run: TaskRun) -> SafeString | str:
        """Return what the agent did, step by step, while it works and afterwards."""
        events = transcript_of(run)
        if not events:
            return "-"
        rows = format_html_join("", "<tr><td>{}</td><td><pre>{}</pre></td></tr>", events)
        return format_html("<table><tbody>{}</tbody></table>", rows)

    def change(self, run: TaskRun) -> SafeString | str:
        """Return the change that the run made, as a diff."""
        change = RunChange.objects.filter(run=run).first()
        if change is None:
            return "-"
        url = reverse("admin:coding_tasks_runchange_change", args=[change.pk])
        link = format_html('<a href="{}">{}</a>', url, change)
        return format_html("{} {}{}", link, change.note, changes_admin.shown(change))
