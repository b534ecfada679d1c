"""The admin's pages of mentions, notices and follow-ups: records, to be read only."""

from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.utils.html import format_html

from workflows.models import FollowUp, Mention, Notice


class ReadOnly:
    """What happened is not edited, and not deleted here either."""

    def has_add_permission(self, _request: HttpRequest, _parent: Model | None = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        """Refuse."""
        return False


class RecordAdmin(ReadOnly, admin.ModelAdmin):
    """A list of records, newest first, without the workspaces' tokens."""

    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Fetch the workspaces with the rows."""
        rows = super().get_queryset(request).select_related("workspace__project__organization")
        return rows.defer("workspace__bot_token")

    @admin.display(ordering="workspace__project__name")
    def project(self, row: Any) -> str:
        """Name the project that pays."""
        return str(row.workspace.project)

    @admin.display(description="text")
    def excerpt(self, row: Any) -> str:
        """Begin the text."""
        return truncatechars(row.text, 80)

    @admin.display(description="workflow", empty_value="–")
    def workflow(self, row: Any) -> str | None:
        """Link to the workflow in Temporal's own pages."""
        return workflow_link(row.workflow_id) if row.workflow_id else None


def workflow_link(workflow_id: str) -> str:
    """Return a link to a workflow in Temporal's UI."""
    namespace = quote(settings.TEMPORAL_NAMESPACE, safe="")
    address = f"{settings.TEMPORAL_UI_URL}/namespaces/{namespace}/workflows/"
    return format_html('<a href="{}{}">{}</a>', address, quote(workflow_id, safe=""), workflow_id)


class NoticeInline(ReadOnly, admin.TabularInline):
    """What a mention's thread was told."""

    model = Notice
    fields = ["kind", "text", "state", "destination", "attempts", "error", "sent_at"]
    extra = 0


@admin.register(Mention)
class MentionAdmin(RecordAdmin):
    """Mentions, with what became of each."""

    date_hierarchy = "received_at"
    list_display = [
        *("received_at", "project", "workspace", "channel_id", "user_id"),
        *("excerpt", "state", "outcome", "workflow"),
    ]
    list_filter = ["state", "workspace__project__organization", "workspace__project"]
    search_fields = ["text", "outcome", "channel_id", "user_id", "ts", "thread_ts", "workflow_id"]
    search_help_text = "Words of the text or the outcome, a Slack id or ts, or a workflow id"
    exclude = ["workflow_id"]
    readonly_fields = ["workflow"]
    inlines = [NoticeInline]


@admin.register(Notice)
class NoticeAdmin(RecordAdmin):
    """What the bot owed to threads, and whether it was said."""

    date_hierarchy = "created_at"
    list_display = [
        *("created_at", "project", "workspace", "channel_id", "kind", "excerpt"),
        *("state", "destination", "attempts", "error", "sent_at"),
    ]
    list_filter = ["state", "kind", "destination", "workspace__project"]
    search_fields = ["text", "key", "channel_id", "user_id", "thread_ts", "error"]
    raw_id_fields = ["mention"]


@admin.register(FollowUp)
class FollowUpAdmin(RecordAdmin):
    """Replies to running tasks."""

    date_hierarchy = "received_at"
    list_display = [
        *("received_at", "project", "workspace", "channel_id", "user_id"),
        *("excerpt", "addressed", "state", "outcome", "workflow"),
    ]
    list_filter = ["state", "addressed", "workspace__project"]
    search_fields = ["text", "outcome", "channel_id", "user_id", "ts", "thread_ts", "workflow_id"]
    exclude = ["workflow_id"]
    readonly_fields = ["workflow"]
