"""Read-only admin pages of tasks' branches and of the changes that runs made."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.admin.read_only import ReadOnly
from coding_tasks.models.kept_changes import ChangeUndo, RunChange, TaskBranch
from projects.admin_parts.named_search import NamedSearch

MOST_SHOWN = 200_000
"""Characters of a change that a page shows."""


def shown(change: RunChange) -> SafeString:
    """Return the beginning of the change as a diff."""
    return format_html(
        '<pre tabindex="0">{}</pre>', change.patch.decode("utf-8", "replace")[:MOST_SHOWN]
    )


@admin.register(TaskBranch)
class TaskBranchAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[TaskBranch]):
    """The branches of tasks, with their pull requests."""

    list_display = ["name", "task", "project", "pushed_commit", "pull_request"]
    list_filter = ["task__project__organization"]
    list_select_related = ["task__project"]
    search_fields = ["name", "task__title", "pull_request"]
    search_ids = ["task__id", "pushed_commit"]
    readonly_fields = fields = ("task", "name", "base_branch", "pushed_commit", "pull_request")

    @admin.display(ordering="task__project__name")
    def project(self, branch: TaskBranch) -> str:
        """Return the name of the task's project."""
        return branch.task.project.name


@admin.register(RunChange)
class RunChangeAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[RunChange]):
    """The changes of runs, and how far their publishing is."""

    list_display = ["created_at", "commit", "run", "branch", "files", "pushed_at", "note"]
    list_filter = ["run__task__project__organization", "pushed_at", "created_at"]
    list_select_related = ["run__task"]
    search_fields = ["branch", "run__task__title", "note"]
    search_ids = ["commit", "run__id"]
    readonly_fields = fields = (
        "run_page",
        "branch",
        "commit",
        "parent",
        "files",
        "added",
        "removed",
        "questions",
        "agreed_at",
        "settled_at",
        "push_began_at",
        "pushed_at",
        "note",
        "created_at",
        "patch",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RunChange]:
        """Return the changes without their contents, which only a change's own page shows."""
        return super().get_queryset(request).defer("packed_patch", "description")

    @admin.display(description="run")
    def run_page(self, change: RunChange) -> SafeString:
        """Return a link to the run that made it."""
        url = reverse("admin:coding_tasks_taskrun_change", args=[change.run_id])
        return format_html('<a href="{}">{}</a>', url, change.run)

    def patch(self, change: Any) -> SafeString:
        """Return the change as a diff."""
        return shown(change)


@admin.register(ChangeUndo)
class ChangeUndoAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[ChangeUndo]):
    """Who wanted which change undone, and what came of it."""

    list_display = ["asked_at", "asked_by", "run", "state", "outcome", "ended_at"]
    list_filter = ["state", "run__task__project__organization", "asked_at"]
    list_select_related = ["run__task"]
    search_fields = ["asked_by", "run__task__title", "outcome"]
    search_ids = ["run__id", "revert_commit"]
    readonly_fields = fields = (
        "run",
        "asked_by",
        "asked_at",
        "state",
        "revert_commit",
        "push_began_at",
        "outcome",
        "ended_at",
        "told_at",
    )
