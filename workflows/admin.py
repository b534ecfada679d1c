"""Admin pages of mentions, notices, follow-ups, requests for credits, and quotes of runs."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.utils.html import format_html

from billing.admin.allowances import CreditsField
from billing.admin.read_only import credits_column
from billing.credits import display, exact
from projects.admin_parts.completed_list import CompletedList
from projects.admin_parts.named_search import NamedSearch
from projects.models import ChannelProject
from projects.slack.channel_projects import projects_of_channels
from projects.slack.names import SlackId, names_of
from quota.reason_words import with_reasons_in_words
from workflows import participants_admin
from workflows.models import (
    CostConfirmation,
    CreditApprover,
    CreditRequest,
    FollowUp,
    Mention,
    Notice,
    RunQuote,
)

# Importing it registers its page.
__all__ = ["participants_admin"]


class ReadOnly:
    """Records of what happened can't be added, changed or deleted."""

    def has_add_permission(self, _request: HttpRequest, _parent: Model | None = None) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        """Return False."""
        return False


class _NamedRows(CompletedList):
    """Looks up all channels, users and projects of a page at once."""

    def complete(self, rows: Sequence[Any]) -> None:
        """Add the names, or the ids where no name is known yet."""
        named = {(row.workspace, row.channel_id) for row in rows if row.has_channel_project}
        paying = projects_of_channels(named) if named else {}
        for row in rows:
            place = (row.workspace, row.channel_id)
            row.paying_project = paying.get(place, row.workspace.project)
        names = names_of(
            SlackId(row.workspace_id, slack_id)
            for row in rows
            for slack_id in (row.channel_id, row.user_id)
        )
        for row in rows:
            row.channel_name = names.get(SlackId(row.workspace_id, row.channel_id), row.channel_id)
            row.user_name = names.get(SlackId(row.workspace_id, row.user_id), row.user_id)


class RecordAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[Any]):
    """A list of records, newest first, without the workspaces' tokens."""

    show_full_result_count = False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that looks up names."""
        return _NamedRows

    @admin.display(ordering="channel_id")
    def channel(self, row: Any) -> str:
        """Return the channel's name."""
        return str(row.channel_name)

    @admin.display(ordering="user_id")
    def user(self, row: Any) -> str:
        """Return the user's name."""
        return str(row.user_name)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with their workspaces, in one query."""
        rows = super().get_queryset(request).select_related("workspace__project__organization")
        channels = ChannelProject.objects.filter(
            workspace=OuterRef("workspace"), channel_id=OuterRef("channel_id")
        )
        found: QuerySet[Any] = rows.annotate(has_channel_project=Exists(channels))
        return found.defer("workspace__bot_token")

    @admin.display(ordering="workspace__project__name")
    def project(self, row: Any) -> str:
        """Return the project that pays."""
        return str(row.paying_project)

    @admin.display(description="outcome", empty_value="–", ordering="outcome")
    def ending(self, row: Any) -> str:
        """Return the outcome, with reasons in words."""
        return with_reasons_in_words(row.outcome)

    @admin.display(description="text")
    def excerpt(self, row: Any) -> str:
        """Return the beginning of the text."""
        return truncatechars(row.text, 80)

    @admin.display(description="workflow", empty_value="–")
    def workflow(self, row: Any) -> str | None:
        """Return a link to the workflow in Temporal's UI."""
        return workflow_link(row.workflow_id) if row.workflow_id else None


def workflow_link(workflow_id: str) -> str:
    """Return a link to a workflow in Temporal's UI."""
    namespace = quote(settings.TEMPORAL_NAMESPACE, safe="")
    address = f"{settings.TEMPORAL_UI_URL}/namespaces/{namespace}/workflows/"
    return format_html('<a href="{}{}">{}</a>', address, quote(workflow_id, safe=""), workflow_id)


class NoticeInline(ReadOnly, admin.TabularInline[Notice, Mention]):
    """Messages about the mention in its thread."""

    model = Notice
    fields = ["kind", "text", "state", "destination", "attempts", "error", "sent_at"]
    extra = 0


@admin.register(Mention)
class MentionAdmin(RecordAdmin):
    """Mentions and how each ended."""

    list_display = [
        "received_at",
        "project",
        "workspace",
        "channel",
        "user",
        "excerpt",
        "state",
        "ending",
        "workflow",
    ]
    list_filter = ["state", "workspace__project__organization", "received_at"]
    search_fields = ["text", "outcome", "workspace__project__name"]
    search_ids = ["channel_id", "user_id", "ts", "thread_ts", "workflow_id"]
    search_help_text = "Words from the text, the outcome or the project, or an id"
    exclude = ["workflow_id", "outcome"]
    readonly_fields = ["ending", "workflow"]
    inlines = [NoticeInline]


@admin.register(Notice)
class NoticeAdmin(RecordAdmin):
    """Messages of the bot to threads, and whether they were sent."""

    list_display = [
        "created_at",
        "project",
        "workspace",
        "channel",
        "kind",
        "excerpt",
        "state",
        "destination",
        "attempts",
        "error",
        "sent_at",
    ]
    list_filter = ["state", "kind", "destination", "created_at"]
    search_fields = ["text", "error", "workspace__project__name"]
    search_ids = ["key__icontains", "channel_id", "user_id", "thread_ts"]
    raw_id_fields = ["mention"]


@admin.register(FollowUp)
class FollowUpAdmin(RecordAdmin):
    """Replies to running tasks."""

    list_display = [
        "received_at",
        "project",
        "workspace",
        "channel",
        "user",
        "excerpt",
        "addressed",
        "state",
        "ending",
        "workflow",
    ]
    list_filter = ["state", "addressed", "received_at"]
    search_fields = ["text", "outcome", "workspace__project__name"]
    search_ids = ["channel_id", "user_id", "ts", "thread_ts", "workflow_id"]
    exclude = ["workflow_id", "outcome"]
    readonly_fields = ["ending", "workflow"]


class _RowsWithProject(CompletedList):
    """Looks up the projects of all the requests on a page at once."""

    def complete(self, rows: Sequence[Any]) -> None:
        """Add the projects."""
        mentions = [row.mention for row in rows]
        paying = projects_of_channels({(each.workspace, each.channel_id) for each in mentions})
        for row in rows:
            row.paying_project = paying[row.mention.workspace, row.mention.channel_id]


@admin.register(CreditRequest)
class CreditRequestAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[CreditRequest]):
    """Who asked for credits, who decided, and why."""

    list_display = [
        "asked_at",
        "project",
        "requester",
        "state",
        "suggested",
        "granted",
        "decided_by",
        "reason",
        "ended_at",
    ]
    list_filter = ["state", "asked_at"]
    search_fields = ["reason", "mention__workspace__project__name"]
    search_ids = ["mention__user_id", "decider_slack_user_id"]
    raw_id_fields = ["mention", "decided_by"]
    exclude = ["suggested_micro", "granted_micro"]
    readonly_fields = ["suggested", "granted"]
    suggested = credits_column("suggested_micro", "suggested credits")
    granted = credits_column("granted_micro", "granted credits")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list that looks up projects."""
        return _RowsWithProject

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditRequest]:
        """Return the rows and the related rows that the list shows, in one query."""
        rows = super().get_queryset(request)
        return rows.select_related("mention__workspace__project", "decided_by").defer(
            "mention__workspace__bot_token"
        )

    @admin.display(ordering="mention__workspace__project__name")
    def project(self, row: Any) -> str:
        """Return the project that would pay."""
        return str(row.paying_project)

    @admin.display(ordering="mention__user_id")
    def requester(self, row: CreditRequest) -> str:
        """Return the Slack user who asks."""
        return row.mention.user_id


@admin.register(CreditApprover)
class CreditApproverAdmin(NamedSearch, admin.ModelAdmin[CreditApprover]):
    """Who in Slack may approve requests for credits, and with whose rights.

    Users who cannot top up cannot add approvers either.
    """

    list_display = ["slack_user_id", "workspace", "user"]
    search_fields = ["user__username", "workspace__name"]
    search_ids = ["slack_user_id"]
    autocomplete_fields = ["workspace", "user"]
    list_select_related = ["workspace", "user"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add approvers and top-ups."""
        return _may_top_up(request) and super().has_add_permission(request)

    def has_change_permission(
        self, request: HttpRequest, obj: CreditApprover | None = None
    ) -> bool:
        """Return whether the user may change approvers and add top-ups."""
        return _may_top_up(request) and super().has_change_permission(request, obj)


class CostConfirmationForm(forms.ModelForm[CostConfirmation]):
    """The form with the threshold in credits."""

    credits = CreditsField(
        required=False,
        label="Ask above (credits)",
        help_text="Ask before runs that may cost more than this, or more than what is left. "
        "0: ask before every run. Empty: never ask.",
    )

    class Meta:
        model = CostConfirmation
        fields = ["project"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        above = self.instance.ask_above_micro
        self.initial.setdefault("credits", "" if above is None else exact(above))

    def save(self, commit: bool = True) -> CostConfirmation:
        """Save the threshold."""
        self.instance.ask_above_micro = self.cleaned_data["credits"]
        saved: CostConfirmation = super().save(commit)
        return saved


@admin.register(CostConfirmation)
class CostConfirmationAdmin(NamedSearch, admin.ModelAdmin[CostConfirmation]):
    """Above which cost the runs of projects ask before they begin."""

    form = CostConfirmationForm
    fields = ["project", "credits"]
    list_display = ["project", "organization", "ask_above"]
    list_select_related = ["project__organization"]
    search_fields = ["project__name", "project__organization__name"]
    named_by = ["project__name"]
    autocomplete_fields = ["project"]
    ask_above = credits_column("ask_above_micro", "ask above (credits)")

    @admin.display(ordering="project__organization__name")
    def organization(self, row: CostConfirmation) -> str:
        """Return the name of the organization that owns the project."""
        return row.project.organization.name


@admin.register(RunQuote)
class RunQuoteAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[RunQuote]):
    """What runs were expected to cost, and what was answered."""

    show_full_result_count = False
    list_display = [
        "made_at",
        "project",
        "run",
        "history",
        "runs_compared",
        "low",
        "high",
        "offered",
        "accepted",
        "state",
        "answered_by",
    ]
    list_filter = ["state", "history", "made_at"]
    search_fields = ["run__task__title", "run__task__project__name"]
    search_ids = ["run__id", "run__message_ts", "answered_by"]
    raw_id_fields = ["run"]
    exclude = ["low_micro", "high_micro", "left_micro", "offered_micro", "smaller_micro"]
    readonly_fields = ["low", "high", "left", "offered", "smaller", "accepted"]
    low = credits_column("low_micro", "from credits")
    high = credits_column("high_micro", "to credits")
    left = credits_column("left_micro", "credits left then")
    offered = credits_column("offered_micro", "offered credits")
    smaller = credits_column("smaller_micro", "smaller number of credits")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RunQuote]:
        """Return the rows and the related rows that the list shows, in one query."""
        rows = super().get_queryset(request)
        return rows.select_related("run__task__project").defer("run__answer", "run__request")

    @admin.display(ordering="run__task__project__name")
    def project(self, row: RunQuote) -> str:
        """Return the project that pays."""
        return str(row.run.task.project)

    @admin.display(description="accepted credits", ordering="run__accepted_micro")
    def accepted(self, row: RunQuote) -> str:
        """Return the number that became the run's cap."""
        return display(row.run.accepted_micro)


def _may_top_up(request: HttpRequest) -> bool:
    return request.user.has_perm("billing.add_creditgrant")
