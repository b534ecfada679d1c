"""The admin page of task participants."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from coding_tasks.models import TaskParticipant
from projects.admin_parts.named_search import NamedSearch
from workflows import participants, wording
from workflows.intake import mentions
from workflows.slack import access
from workflows.slack.client import failure_of


class TaskParticipantForm(forms.ModelForm[TaskParticipant]):
    """Who is to join which task."""

    class Meta:
        model = TaskParticipant
        fields = ["task", "slack_user_id"]

    def clean(self) -> dict[str, Any]:
        """Require an active task in a thread, and a person who may use the bot in its workspace."""
        cleaned: dict[str, Any] = super().clean() or {}
        task, user_id = cleaned.get("task"), cleaned.get("slack_user_id")
        if task is None or not user_id:
            return cleaned
        if task.workspace is None or task.state != task.State.ACTIVE:
            raise ValidationError({"task": "It is not an active task of a Slack thread."})
        if task.accepts(user_id):
            raise ValidationError({"slack_user_id": "This person can write to the task already."})
        try:
            answer = access.check(task.workspace, user_id)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise ValidationError(f"Slack does not say who that is: {failure.error}.") from error
        if answer is not access.Access.GRANTED:
            raise ValidationError({"slack_user_id": "This person may not use the bot there."})
        return cleaned


@admin.register(TaskParticipant)
class TaskParticipantAdmin(NamedSearch, admin.ModelAdmin[TaskParticipant]):
    """Who may write to whose task, since when, and who decided. Rows can only be added and ended.

    Deleting one would hide who decided what.
    """

    form = TaskParticipantForm
    list_display = [
        "slack_user_id",
        "task",
        "owner",
        "added_by",
        "added_at",
        "removed_by",
        "removed_at",
    ]
    list_filter = ["added_at"]
    list_select_related = ["task"]
    search_fields = ["task__title", "task__project__name", "added_by", "removed_by"]
    search_ids = ["slack_user_id", "task__owner_slack_user_id", "task__id"]
    raw_id_fields = ["task"]
    actions = ["remove"]

    def has_change_permission(
        self, _request: HttpRequest, _row: TaskParticipant | None = None
    ) -> bool:
        """Return False, because decisions aren't edited."""
        return False

    def has_delete_permission(
        self, _request: HttpRequest, _row: TaskParticipant | None = None
    ) -> bool:
        """Return False."""
        return False

    def save_model(
        self, request: HttpRequest, obj: TaskParticipant, form: Any, change: bool
    ) -> None:
        """Let the person join, and decide again about their refused requests."""
        by = request.user.get_username()
        decider = wording.an_administrator()
        refused = participants.let_join(obj.task, obj.slack_user_id, by, decider=decider)
        joined = TaskParticipant.objects.filter(
            task=obj.task, slack_user_id=obj.slack_user_id, removed_at=None
        ).first()
        if joined is None:
            raise ValidationError("The task has ended.")
        obj.pk, obj.added_at, obj.added_by = joined.pk, joined.added_at, joined.added_by
        for each in refused or []:
            each.refresh_from_db(fields=["state", "outcome", "lease_until"])
            mentions.admit_or_keep(each)

    @admin.display(ordering="task__owner_slack_user_id")
    def owner(self, row: TaskParticipant) -> str:
        """Return the Slack user whose task it is."""
        return row.task.owner_slack_user_id

    @admin.action(description="Remove from the task", permissions=["add"])
    def remove(self, request: HttpRequest, rows: Any) -> None:
        """Remove these people from these tasks."""
        by = request.user.get_username()
        removed = 0
        for row in rows.select_related("task__workspace").defer("task__workspace__bot_token"):
            decider = wording.an_administrator()
            removed += participants.remove(row.task, row.slack_user_id, by, decider=decider)
        self.message_user(request, f"Removed: {removed}.")
