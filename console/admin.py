"""The admin's pages of organizations and projects.

They join folders: what is written goes through billing, which publishes it, and a page shows where
the organization stands with its credits.
"""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from billing import accounts
from billing.credits import display
from console.report_permissions import ORGANIZATION_USAGE
from console.usage import pages
from projects import revocation
from projects.admin import MembershipInline
from projects.models import Organization, Project
from projects.permitted_parts import Link, PermittedParts
from quota.resources import RESOURCES

LISTS = (
    ("accounts, limits and usage", "billing", "account", "organization__id__exact"),
    ("personal API keys", "projects", "personalapikey", "organization__id__exact"),
    ("coding tasks", "coding_tasks", "codingtask", "project__organization__id__exact"),
)


def _more(organization: Organization) -> Iterator[Link]:
    """Yield the pages of what belongs to an organization."""
    usage = reverse("admin:projects_organization_usage", args=[organization.pk])
    title = "usage: charts, forecast, who used most, who is limited and why"
    yield Link(ORGANIZATION_USAGE, title, usage)
    for title, app, model, field in LISTS:
        page = reverse(f"admin:{app}_{model}_changelist")
        address = f"{page}?{urlencode({field: str(organization.pk)})}"
        yield Link((f"{app}.view_{model}",), title, address)


class ProjectInline(admin.TabularInline):
    """The projects of an organization; each has its own page."""

    model = Project
    fields = ("name", "api_token", "created_at")
    readonly_fields = fields
    extra = 0
    show_change_link = True
    can_delete = False

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Projects are made on their own page."""
        return False


@admin.register(Organization)
class OrganizationAdmin(PermittedParts, admin.ModelAdmin):
    """Who pays, who belongs to it, and where it stands."""

    list_display = [
        "name",
        "is_active",
        "projects_count",
        "members_count",
        "credit_states",
        "usage",
    ]
    list_filter = ["is_active", "unmetered_gateway", "quota_states__state"]
    search_fields = ["name", "id", "projects__name", "projects__api_token"]
    readonly_fields = ["id", "created_at", "standing"]
    fields = [
        "name",
        "is_active",
        "unmetered_gateway",
        "standing",
        "more",
        "id",
        "created_at",
    ]
    needed = {
        "projects_count": ("projects.view_project",),
        "members_count": ("projects.view_membership",),
        "credit_states": ("billing.view_account",),
        "quota_states__state": ("billing.view_account",),
        "standing": ("billing.view_account",),
        "usage": ORGANIZATION_USAGE,
    }
    links = {"more": ("more about it", _more)}
    inlines = [ProjectInline, MembershipInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        """Count and look up for the whole page at once."""
        counted = (
            super()
            .get_queryset(request)
            .annotate(
                projects_total=Count("projects", distinct=True),
                members_total=Count("members", distinct=True),
            )
        )
        return counted.prefetch_related("quota_states")

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that report on an organization's usage."""
        reports = (("usage", pages.usage_page), ("backtest", pages.backtest_page))
        own = [
            path(
                f"<uuid:organization_id>/{name}/",
                self.admin_site.admin_view(page),
                name=f"projects_organization_{name}",
            )
            for name, page in reports
        ]
        return own + super().get_urls()

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """What was booked stays booked: an organization is deactivated, not deleted."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write through billing what decides about credits.

        Keys learn at once, wherever they are known, what else they may call or may no longer.
        """
        if not change:
            created = accounts.create_organization(obj.name)
            obj.pk, obj.created_at = created.pk, created.created_at
            obj._state.adding = False
        super().save_model(request, obj, form, change=True)
        if obj.is_active != form.initial.get("is_active", True):
            accounts.set_organization_active(
                obj, obj.is_active, actor=request.user.get_username(), reason="in the admin"
            )
        if change and "unmetered_gateway" in form.changed_data:
            keys = obj.personal_api_keys.filter(revoked_at=None)
            revocation.announce(keys.values_list("sha256", flat=True))

    @admin.display(description="projects", ordering="projects_total")
    def projects_count(self, organization: Any) -> int:
        """How many projects it has."""
        return int(organization.projects_total)

    @admin.display(description="members", ordering="members_total")
    def members_count(self, organization: Any) -> int:
        """How many people belong to it."""
        return int(organization.members_total)

    @admin.display(description="credits")
    def credit_states(self, organization: Any) -> str:
        """The state of each bucket about which something was decided."""
        states = {row.resource: row.state for row in organization.quota_states.all()}
        return ", ".join(f"{name}: {states[name]}" for name in RESOURCES if name in states) or "–"

    @admin.display(description="usage")
    def usage(self, organization: Any) -> SafeString:
        """Link to where its credits went."""
        page = reverse("admin:projects_organization_usage", args=[organization.pk])
        return format_html('<a href="{}">Usage</a>', page)

    @admin.display(description="where it stands")
    def standing(self, organization: Any) -> SafeString | str:
        """What is published of each bucket, in credits."""
        if organization.pk is None or organization._state.adding:
            return "–"
        rows = [row.published for row in organization.quota_states.all()]
        return format_html(
            "<table><thead><tr><th>bucket</th><th>state</th><th>used</th><th>limit</th>"
            "<th>remaining</th><th>resets</th></tr></thead><tbody>{}</tbody></table>",
            format_html_join(
                "",
                "<tr><td>{}</td><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                (
                    (
                        RESOURCES[state.resource].title,
                        state.state,
                        f" ({state.reason})" if state.reason else "",
                        display(state.usage_micro),
                        "unlimited" if state.limit_micro is None else display(state.limit_micro),
                        display(state.remaining_micro),
                        f"{state.resets_at:%Y-%m-%d %H:%M} UTC" if state.resets_at else "–",
                    )
                    for state in rows
                ),
            ),
        )


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin):
    """What is metered. Its API token can be rotated; a limited project stays limited."""

    list_display = ["name", "organization", "api_token", "created_at"]
    list_filter = ["organization__is_active"]
    list_select_related = ["organization"]
    search_fields = ["name", "api_token", "organization__name"]
    autocomplete_fields = ["organization"]
    readonly_fields = ["api_token", "created_at"]
    fields = ["name", "organization", "api_token", "created_at"]
    actions = ["rotate_api_tokens"]

    def get_readonly_fields(self, _request: HttpRequest, obj: Any = None) -> list[str]:
        """A project stays with its organization: what it used was booked there."""
        return [*self.readonly_fields, *(["organization"] if obj else [])]

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """What was booked stays booked."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Make a project through billing, so that it is limited from its first moment on."""
        if change:
            super().save_model(request, obj, form, change)
            return
        created = accounts.create_project(obj.organization, obj.name)
        obj.pk = created.pk
        obj.refresh_from_db()

    @admin.action(
        description="Rotate the API tokens of the selected projects", permissions=["change"]
    )
    def rotate_api_tokens(self, request: HttpRequest, projects: QuerySet[Project]) -> None:
        """Give each a new token; the old one means nothing from then on."""
        rotated = list(projects)
        for project in rotated:
            accounts.rotate_api_token(
                project, actor=request.user.get_username(), reason="in the admin"
            )
        self.message_user(request, f"{len(rotated)} API token(s) rotated.", messages.SUCCESS)
