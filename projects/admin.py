"""The admin's pages of users, credentials and Slack workspaces."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from oauth2_provider.admin import ApplicationAdmin
from oauth2_provider.models import revoke_access_token

from projects.credentials import issue_personal_api_key, revoke_personal_api_key
from projects.models import (
    Membership,
    OAuthAccessToken,
    OAuthApplication,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    PersonalAPIKey,
    SlackWorkspace,
    User,
)
from projects.principal import SCOPES

for model in (
    OAuthApplication,
    OAuthAccessToken,
    OAuthRefreshToken,
    OAuthGrant,
    OAuthIDToken,
):  # the toolkit's own pages: we don't need half of them, and replace the others below
    admin.site.unregister(model)
admin.site.unregister(Group)

_ANY_MEMBERSHIP = ("projects.add_membership", "projects.change_membership")
"""Users with these rights can give themselves any membership."""


class MembershipInline(admin.TabularInline[Membership, User]):
    """The organizations of a user, or the users of an organization."""

    model = Membership
    extra = 0
    autocomplete_fields = ["user", "organization"]


def _has_all_rights_of(other: User, user: Any) -> bool:
    """Return whether `user` has every right that `other` has, or would have if active.

    Being a member of an organization counts as a right, and being its admin as another.
    """
    if user.is_superuser:
        return True
    granted = Permission.objects.filter(Q(user=other) | Q(group__user=other)).values_list(
        "content_type__app_label", "codename"
    )
    return (
        not other.is_superuser
        and user.has_perms(f"{app}.{name}" for app, name in granted)
        and (user.has_perms(_ANY_MEMBERSHIP) or _shares_organizations(other, user))
    )


def _shares_organizations(other: User, user: Any) -> bool:
    """Return whether `user` is in all of `other`'s organizations, in the same or a higher role."""
    own = dict(Membership.objects.filter(user=user.pk).values_list("organization", "role"))
    theirs = Membership.objects.filter(user=other).values_list("organization", "role")
    return all(
        own.get(organization) in {role, Membership.Role.ADMIN} for organization, role in theirs
    )


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin):
    """Groups of rights. Only superusers give rights."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Allow superusers only, because a new group can have any right."""
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, _obj: Any = None) -> bool:
        """Allow superusers only, because others could give their own group any right."""
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, _obj: Any = None) -> bool:
        """Allow superusers only, because deleting a group takes rights away."""
        return bool(request.user.is_superuser)


@admin.register(User)
class UserAdmin(DjangoUserAdmin[User]):
    """Users. Deactivating a user ends their sessions and credentials at once."""

    list_display = ["username", "email", "is_active", "is_staff", "last_login"]
    inlines = [MembershipInline]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse changes to users with more rights: a new password would hand over those rights."""
        if obj is not None and not _has_all_rights_of(obj, request.user):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse deleting users who have more rights."""
        if obj is not None and not _has_all_rights_of(obj, request.user):
            return False
        return super().has_delete_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Make rights read-only except for superusers."""
        rights = () if request.user.is_superuser else ("is_superuser", "groups", "user_permissions")
        return (*super().get_readonly_fields(request, obj), *rights)

    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": ("username", "email", "usable_password", "password1", "password2"),
            },
        ),
    )


class PersonalAPIKeyForm(forms.ModelForm[PersonalAPIKey]):
    """The form of a new key: whose it is and what it covers."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in sorted(SCOPES)],
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = PersonalAPIKey
        fields = ["label", "organization", "user", "scopes", "all_projects", "projects"]

    def clean(self) -> dict[str, Any]:
        """Refuse a key that covers nothing, too much, or somebody else's projects."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        organization, user = cleaned.get("organization"), cleaned.get("user")
        projects = cleaned.get("projects") or []
        if bool(projects) == bool(cleaned.get("all_projects")):
            self.add_error("projects", "Choose projects, or all projects of the organization.")
        if organization is None:
            return cleaned
        if any(project.organization_id != organization.pk for project in projects):
            self.add_error("projects", f"A key of {organization} covers its own projects only.")
        if user is not None and not organization.members.filter(pk=user.pk).exists():
            self.add_error("user", f"{user} is not a member of {organization}.")
        return cleaned


class RevokedFilter(admin.SimpleListFilter):
    """Shows only working or only revoked keys."""

    title = "state"
    parameter_name = "state"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the two choices."""
        return [("works", "works"), ("revoked", "revoked")]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Return the rows in the chosen state."""
        if self.value() is None:
            return queryset
        return queryset.filter(revoked_at__isnull=self.value() == "works")


@admin.register(PersonalAPIKey)
class PersonalAPIKeyAdmin(admin.ModelAdmin[PersonalAPIKey]):
    """Personal API keys. A new key is shown once, in the answer that creates it."""

    form = PersonalAPIKeyForm
    list_display = ["label", "mask", "organization", "user", "scopes", "created_at", "revoked_at"]
    list_filter = [RevokedFilter]
    list_select_related = ["organization", "user"]
    search_fields = ["label", "mask", "organization__name", "user__username", "user__email"]
    autocomplete_fields = ["organization", "user", "projects"]
    actions = ["revoke"]

    def get_readonly_fields(self, _request: HttpRequest, key: Any = None) -> list[str]:
        """Make everything but the label of an existing key read-only."""
        if key is None:
            return []
        fields = ["organization", "user", "scopes", "all_projects", "projects"]
        return ["mask", *fields, "created_at", "revoked_at"]

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Use the plain form for an existing key: only new keys need the checks above."""
        if obj is not None:
            kwargs["form"] = forms.ModelForm
        return super().get_form(request, obj, change, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Issue a new key; its plain text is kept only on this request."""
        if change:
            super().save_model(request, obj, form, change)
            return
        given = form.cleaned_data
        key, plain = issue_personal_api_key(
            given["organization"],
            given["label"],
            given["scopes"],
            given["projects"],
            given["user"],
        )
        obj.pk = key.pk
        obj.refresh_from_db()
        request.issued_key = plain  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: Any, _next: str | None = None
    ) -> HttpResponse:
        """Show the key in this answer. A redirect would have to store it."""
        context = self.admin_site.each_context(request) | {
            "title": f"{obj.label}: the new key",
            "opts": self.opts,
            "plain": request.issued_key,  # type: ignore[attr-defined]
        }
        return TemplateResponse(request, "projects/issued_key.html", context)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[PersonalAPIKey]) -> None:
        """Revoke the keys for good."""
        working = keys.filter(revoked_at=None)
        for key in working:
            revoke_personal_api_key(key)
        self.message_user(request, f"{len(working)} key(s) revoked.", messages.SUCCESS)


@admin.register(OAuthApplication)
class OAuthApplicationAdmin(ApplicationAdmin):
    """OAuth clients, such as desktop applications: public, with the authorization code grant."""

    list_display = ["name", "client_id", "client_type", "created"]
    list_filter = ["client_type"]
    search_fields = ["name", "client_id"]
    autocomplete_fields = ["user"]
    raw_id_fields = ()
    fields = ["name", "client_id", "client_type", "client_secret", "redirect_uris"]
    radio_fields = {"client_type": admin.HORIZONTAL}
    readonly_fields = ()

    def get_changeform_initial_data(self, _request: HttpRequest) -> dict[str, Any]:
        """Suggest a public client, because a desktop application can't keep a secret."""
        return {
            "client_type": OAuthApplication.CLIENT_PUBLIC,
            "redirect_uris": "http://127.0.0.1/callback",
        }


class ExpiredFilter(admin.SimpleListFilter):
    """Shows only working or only expired tokens."""

    title = "state"
    parameter_name = "state"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the two choices."""
        return [("works", "works"), ("expired", "expired")]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Return the rows in the chosen state."""
        if self.value() is None:
            return queryset
        works = queryset.filter(expires__gt=timezone.now())
        return works if self.value() == "works" else queryset.exclude(pk__in=works)


@admin.register(OAuthAccessToken)
class OAuthAccessTokenAdmin(admin.ModelAdmin[OAuthAccessToken]):
    """Access tokens of task runs, products and desktop clients. Only their hashes are stored."""

    list_display = ["id", "project", "made_for", "user", "expires"]
    list_filter = [ExpiredFilter, ("application", admin.EmptyFieldListFilter)]
    list_select_related = ["project__organization", "application", "user"]
    search_fields = ["=task_run_id", "project__name", "user__username", "application__name"]
    fields = [
        "project",
        "application",
        "user",
        "task_run_id",
        "products",
        "scope",
        "created",
        "expires",
    ]
    actions = ["revoke"]

    @admin.display(description="made for")
    def made_for(self, token: OAuthAccessToken) -> str:
        """Return what the token was made for: a task run, a product or a desktop client."""
        if token.task_run_id:
            return f"task run {token.task_run_id}"
        return str(token.application) if token.application else ", ".join(token.products)

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Return False: tokens are minted, never typed."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: what a token covers is decided when it is minted."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: tokens are revoked, together with their refresh tokens."""
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Allow revoking to users who can delete."""
        return bool(request.user.has_perm("projects.delete_oauthaccesstoken"))

    @admin.action(description="Revoke the selected tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, tokens: Iterable[OAuthAccessToken]) -> None:
        """Revoke the tokens and their refresh tokens."""
        revoked = 0
        for token in tokens:
            revoke_access_token(token)
            revoked += 1
        self.message_user(request, f"{revoked} token(s) revoked.", messages.SUCCESS)


class SlackWorkspaceForm(forms.ModelForm[SlackWorkspace]):
    """The form of a workspace. Its bot token can be replaced but not read."""

    new_bot_token = forms.CharField(
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="xoxb-…; empty: the token stays as it is. It is stored encrypted.",
    )

    class Meta:
        model = SlackWorkspace
        exclude = ["bot_token"]  # noqa: DJ006

    def clean(self) -> dict[str, Any]:
        """Require a token for a new workspace."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        token = cleaned.get("new_bot_token", "")
        if token and not token.startswith("xoxb-"):
            self.add_error("new_bot_token", "A bot token begins with xoxb-.")
        if not token and self.instance._state.adding:
            self.add_error("new_bot_token", "A new workspace needs its bot token.")
        if token:
            self.instance.bot_token = token
        return cleaned


@admin.register(SlackWorkspace)
class SlackWorkspaceAdmin(admin.ModelAdmin[SlackWorkspace]):
    """Where the app is installed, and which project it serves there."""

    form = SlackWorkspaceForm
    list_display = ["__str__", "team_id", "project", "organization", "access", "is_active"]
    list_filter = ["is_active", "access"]
    list_select_related = ["project__organization"]
    search_fields = ["name", "team_id", "enterprise_id", "project__name"]
    autocomplete_fields = ["project"]
    readonly_fields = ["installed_at", "uninstalled_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[SlackWorkspace]:
        """Return the workspaces without their tokens, which no page needs to decrypt."""
        return super().get_queryset(request).defer("bot_token")

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: deleting it would delete its mentions. Make it inactive instead."""
        return False

    @admin.display(ordering="project__organization__name")
    def organization(self, workspace: SlackWorkspace) -> str:
        """Return the organization that pays for it."""
        return str(workspace.project.organization)
