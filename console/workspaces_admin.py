"""The admin's pages of Slack workspaces. Switching one on or off leaves an audit entry."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from billing import audit
from billing.models import AuditEntry
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.second_look import SecondLookAdmin, SecondLookForm, reason_for_switching
from projects.models import RotatingToken, SlackWorkspace


class SlackWorkspaceForm(SecondLookForm):
    """The form of a workspace. Its bot token can be replaced but not read."""

    new_bot_token = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="xoxb-…; empty: the token stays as it is. It is stored encrypted.",
    )

    reason = reason_for_switching()

    class Meta:
        model = SlackWorkspace
        exclude = ["bot_token"]

    def clean(self) -> dict[str, Any]:
        """Require a token for a new workspace."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        token = cleaned.get("new_bot_token", "")
        if token and not token.startswith(("xoxb-", "xoxe.xoxb-")):
            self.add_error("new_bot_token", "A bot token begins with xoxb-.")
        if not token and self.instance._state.adding:
            self.add_error("new_bot_token", "A new workspace needs its bot token.")
        if token:
            self.instance.bot_token = token
        if self._is_switched() and not cleaned.get("reason"):
            self.add_error("reason", "Say why it is switched on or off.")
        self._check_identity(cleaned)
        return cleaned

    def consequences(self, given: dict[str, Any]) -> list[str]:
        """Return what deactivating does."""
        if not self._is_switched() or given.get("is_active"):
            return []
        return [
            f"{self.instance}, which serves {given['project']}, is switched off.",
            "From then on the bot answers nobody there. It ignores mentions, replies and commands.",
        ]

    def _is_switched(self) -> bool:
        return not self.instance._state.adding and "is_active" in self.changed_data

    def _check_identity(self, cleaned: dict[str, Any]) -> None:
        """Explain what the constraints of the table would reject."""
        team, enterprise = cleaned.get("team_id"), cleaned.get("enterprise_id")
        if not team and not enterprise:
            self.add_error(
                "team_id",
                "Enter the workspace's id (T…), or the Enterprise organization's id (E…) below.",
            )
            return
        same = {"team_id": team} if team else {"team_id": "", "enterprise_id": enterprise}
        others = SlackWorkspace.objects.filter(**same).exclude(pk=self.instance.pk)
        if others.exists():
            self.add_error(
                "team_id" if team else "enterprise_id",
                f"{team or enterprise} is installed already. Change the row that is in the list.",
            )


@admin.register(SlackWorkspace)
class SlackWorkspaceAdmin(SecondLookAdmin, NamedSearch, admin.ModelAdmin[SlackWorkspace]):
    """Where the app is installed, and which project it serves there."""

    form = SlackWorkspaceForm
    list_display = ["__str__", "team_id", "project", "organization", "access", "is_active"]
    list_filter = ["is_active", "access"]
    list_select_related = ["project__organization"]
    search_fields = ["name", "project__name"]
    search_ids = ["team_id", "enterprise_id"]
    named_by = ["name"]
    autocomplete_fields = ["project"]
    readonly_fields = ["scopes", "bot_token_expires", "installed_at", "uninstalled_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[SlackWorkspace]:
        """Return the workspaces without their tokens, which no page needs to decrypt."""
        return super().get_queryset(request).defer("bot_token")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save, and record in the audit trail that it was switched on or off."""
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if form.cleaned_data.get("new_bot_token"):
                RotatingToken.objects.filter(workspace=obj).delete()  # it belongs to the old token
            if change and "is_active" in form.changed_data:
                action = AuditEntry.Action
                audit.record(
                    action.WORKSPACE_ACTIVATED if obj.is_active else action.WORKSPACE_DEACTIVATED,
                    obj.project.organization,
                    actor=request.user.get_username(),
                    reason=form.cleaned_data["reason"],
                    workspace=obj.pk,
                    name=str(obj),
                )

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: deleting it would delete its mentions. Make it inactive instead."""
        return False

    @admin.display(description="bot token expires")
    def bot_token_expires(self, workspace: SlackWorkspace) -> str:
        """Return when the bot token expires, and what kept it from being renewed."""
        token = RotatingToken.objects.filter(workspace=workspace.pk).defer("refresh_token").first()
        if token is None:
            return "never"
        expires = f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
        if token.refresh_at is None:
            return f"{expires}. It cannot be renewed ({token.problem}): install the app again."
        return f"{expires}. Not renewed yet: {token.problem}." if token.problem else expires

    @admin.display(ordering="project__organization__name")
    def organization(self, workspace: SlackWorkspace) -> str:
        """Return the organization that pays for it."""
        return str(workspace.project.organization)
