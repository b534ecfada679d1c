"""The admin's pages of personal API keys and access tokens.

A revocation needs a reason, which billing's audit trail keeps.
"""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from oauth2_provider.models import revoke_access_token

import projects.admin  # noqa: F401  it takes away the toolkit's own pages of these models
from billing import audit, personal_keys
from billing.models import AuditEntry
from billing.products import TITLES
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.second_look import SecondLook
from projects.models import OAuthAccessToken, PersonalAPIKey, Project
from projects.principal import SCOPES


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
class PersonalAPIKeyAdmin(NamedSearch, admin.ModelAdmin[PersonalAPIKey]):
    """Personal API keys. A new key is shown once, in the answer that creates it."""

    form = PersonalAPIKeyForm
    list_display = ["label", "mask", "organization", "user", "scopes", "created_at", "revoked_at"]
    list_filter = [RevokedFilter]
    list_select_related = ["organization", "user"]
    search_fields = ["label", "organization__name", "user__username", "user__email"]
    search_ids = ["mask__icontains"]
    named_by = ["label"]
    autocomplete_fields = ["organization", "user", "projects"]
    actions = ["revoke"]

    def get_readonly_fields(self, _request: HttpRequest, key: Any = None) -> list[str]:
        """Return the read-only fields: for an existing key, everything but its label."""
        if key is None:
            return []
        fields = ["organization", "user", "scopes", "all_projects", "projects"]
        return ["mask", *fields, "created_at", "revoked_at"]

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the plain form for an existing key: only new keys need the checks above."""
        if obj is not None:
            kwargs["form"] = forms.ModelForm
        return super().get_form(request, obj, change, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Issue a new key; its plain text is kept only on this request."""
        if change:
            super().save_model(request, obj, form, change)
            return
        given = form.cleaned_data
        key, plain = personal_keys.create(
            given["organization"],
            given["label"],
            given["scopes"],
            given["projects"],
            given["user"],
            actor=request.user.get_username(),
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
    def revoke(
        self, request: HttpRequest, keys: QuerySet[PersonalAPIKey]
    ) -> TemplateResponse | None:
        """Revoke the keys for good, after a second look."""
        look = SecondLook(
            self,
            request,
            keys.filter(revoked_at=None)
            .select_related("organization", "user")
            .prefetch_related("projects")
            .order_by("pk"),
            title="Revoke personal API keys",
            effect=_effect_of_revoking_key,
            button="Revoke these keys",
        )
        if not look.is_confirmed:
            return look.answer
        for key in look.rows:
            personal_keys.revoke(key, actor=request.user.get_username(), reason=look.reason)
        self.message_user(request, f"{len(look.rows)} key(s) revoked.", messages.SUCCESS)
        return None


def _effect_of_revoking_key(key: PersonalAPIKey) -> str:
    covered = "every project" if key.all_projects else _names(key.projects.all())
    owner = f"{key.user} of {key.organization}" if key.user else str(key.organization)
    return (
        f"The key {key.label} ({key.mask}) of {owner} stops working for good. Whatever uses it for "
        f"{covered} is refused from then on. Only a new key helps."
    )


def _names(projects: Iterable[Project]) -> str:
    """Return the first projects by name, and how many more there are."""
    names = [project.name for project in projects]
    more = f" and {len(names) - 5} more projects" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


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
class OAuthAccessTokenAdmin(NamedSearch, admin.ModelAdmin[OAuthAccessToken]):
    """Access tokens of task runs, products and desktop clients. Only their hashes are stored."""

    list_display = ["id", "project", "made_for", "user", "expires"]
    list_filter = [ExpiredFilter, ("application", admin.EmptyFieldListFilter)]
    list_select_related = ["project__organization", "application", "user"]
    search_fields = ["project__name", "user__username", "application__name"]
    search_ids = ["task_run_id"]
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
        if token.application:
            return str(token.application)
        return ", ".join(TITLES.get(name, name) for name in token.products)

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
        """Return whether the user may revoke, which needs permission to delete."""
        return bool(request.user.has_perm("projects.delete_oauthaccesstoken"))

    @admin.action(description="Revoke the selected tokens", permissions=["revoke"])
    def revoke(
        self, request: HttpRequest, tokens: QuerySet[OAuthAccessToken]
    ) -> TemplateResponse | None:
        """Revoke the tokens and their refresh tokens, after a second look."""
        look = SecondLook(
            self,
            request,
            tokens.select_related("project__organization", "application", "user").order_by("pk"),
            title="Revoke access tokens",
            effect=self._effect_of_revoking,
            button="Revoke these tokens",
        )
        if not look.is_confirmed:
            return look.answer
        for token in look.rows:
            with transaction.atomic():
                audit.record(
                    AuditEntry.Action.TOKEN_REVOKED,
                    token.project.organization if token.project else None,
                    actor=request.user.get_username(),
                    reason=look.reason,
                    token=token.pk,
                    made_for=self.made_for(token),
                )
                revoke_access_token(token)
        self.message_user(request, f"{len(look.rows)} token(s) revoked.", messages.SUCCESS)
        return None

    def _effect_of_revoking(self, token: OAuthAccessToken) -> str:
        whose = f" of {token.user}" if token.user else ""
        project = f" in {token.project}" if token.project else ""
        refused = (
            "The run can't call a model any more, and fails."
            if token.task_run_id
            else "Its user is refused, and has to log in again."
        )
        return f"The token for {self.made_for(token)}{whose}{project} stops working. {refused}"
