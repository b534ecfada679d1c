"""The admin's pages of organizations and projects.

Changes go through billing, which publishes them. An organization's page also shows its credits.
"""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from billing import organizations
from billing.admin.standing import StandingColumns, StateFilter, with_standing
from billing.credits import display
from console import credentials_admin, workspaces_admin
from console.report_permissions import ORGANIZATION_USAGE
from console.usage import pages
from projects import revocation
from projects.admin import MembershipInline
from projects.admin_parts.named_search import NamedSearch
from projects.admin_parts.permitted_parts import Link, PermittedParts
from projects.admin_parts.second_look import (
    SecondLook,
    SecondLookAdmin,
    SecondLookForm,
    reason_for_switching,
)
from projects.models import Membership, Organization, Project
from quota.moments import moment
from quota.reason_words import in_words, state_in_words
from quota.resources import AI_CREDITS, RESOURCES

# Importing these modules registers their pages.
__all__ = ["credentials_admin", "workspaces_admin"]

_ACCOUNT = ("billing.view_account",)
LISTS = (
    ("accounts, limits and usage", "billing", "account", "organization__id__exact"),
    ("personal API keys", "projects", "personalapikey", "organization__id__exact"),
    ("coding tasks", "coding_tasks", "codingtask", "project__organization__id__exact"),
)


def _more(organization: Organization) -> Iterator[Link]:
    """Yield links to the pages of an organization's usage, accounts, keys and tasks."""
    usage = reverse("admin:projects_organization_usage", args=[organization.pk])
    title = "usage: charts, forecast, who used most, who is limited and why"
    yield Link(ORGANIZATION_USAGE, title, usage)
    for title, app, model, field in LISTS:
        page = reverse(f"admin:{app}_{model}_changelist")
        address = f"{page}?{urlencode({field: str(organization.pk)})}"
        yield Link((f"{app}.view_{model}",), title, address)


def bucket_shown(request: HttpRequest) -> str:
    """Return the bucket whose amounts the list shows."""
    chosen = request.GET.get(BucketShown.parameter_name, "")
    return chosen if chosen in RESOURCES else AI_CREDITS


class BucketShown(admin.SimpleListFilter):
    """Chooses the bucket whose amounts the list shows. It hides no organization."""

    title = "bucket"
    parameter_name = "bucket"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the buckets."""
        return [(resource.name, resource.title) for resource in RESOURCES.values()]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield the buckets. One of them is always chosen."""
        chosen = self.value() if self.value() in RESOURCES else AI_CREDITS
        for name, title in self.lookup_choices:
            yield {
                "selected": name == chosen,
                "query_string": changelist.get_query_string({self.parameter_name: name}),
                "display": title,
            }

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return all rows."""
        return queryset


class StateShown(admin.SimpleListFilter):
    """Filters by the state of the bucket that the list shows."""

    title = "state"
    parameter_name = "state"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return list(StateFilter.words.items())

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows in the chosen state."""
        state = self.value()
        return queryset if state is None else queryset.filter(published_state=state)


def _count(rows: QuerySet[Any]) -> Coalesce:
    counts = rows.values("organization").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counts, output_field=IntegerField()), 0)


class ProjectInline(admin.TabularInline[Project, Organization]):
    """The projects of an organization; each has its own page."""

    model = Project
    fields = ("name", "api_token", "created_at")
    readonly_fields = fields
    extra = 0
    show_change_link = True
    can_delete = False

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: projects are created on their own page."""
        return False


class OrganizationForm(SecondLookForm):
    """The form of an organization. Switching it on or off needs a reason."""

    reason = reason_for_switching()

    class Meta:
        model = Organization
        fields = ["name", "is_active", "unmetered_gateway"]

    def clean(self) -> dict[str, Any]:
        """Require a reason if the organization is switched on or off."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if self._is_switched() and not given.get("reason"):
            self.add_error("reason", "Say why it is switched on or off.")
        return given

    def consequences(self, given: dict[str, Any]) -> list[str]:
        """Return what deactivating does."""
        if not self._is_switched() or given.get("is_active"):
            return []
        projects = [project.name for project in self.instance.projects.order_by("name")]
        named = ", ".join(projects[:5])
        if len(projects) > 5:
            named += f" and {len(projects) - 5} more"
        return [
            f"{self.instance} is switched off. All its projects are refused in every bucket from "
            f"then on, until somebody switches it on again: {named or 'it has none yet'}.",
            "Tasks that are running stop at their next call to a model. Nobody is told beforehand.",
        ]

    def _is_switched(self) -> bool:
        was_active = True if self.instance._state.adding else self.initial["is_active"]
        return bool(self.cleaned_data.get("is_active", was_active) != was_active)


@admin.register(Organization)
class OrganizationAdmin(
    StandingColumns, SecondLookAdmin, NamedSearch, PermittedParts, admin.ModelAdmin[Organization]
):
    """Organizations: their projects, members and credits."""

    list_display = [
        "name",
        "used",
        "left",
        "share_used",
        "state_words",
        "limit",
        "usage",
        "is_active",
        "projects_count",
        "members_count",
    ]
    list_filter = [BucketShown, StateShown, "is_active", "unmetered_gateway"]
    search_fields = ["name", "projects__name"]
    search_ids = ["id", "projects__api_token"]
    named_by = ["name"]
    form = OrganizationForm
    readonly_fields = ["id", "created_at", "standing"]
    fields = [
        "name",
        "is_active",
        "reason",
        "confirmed",
        "unmetered_gateway",
        "standing",
        "more",
        "id",
        "created_at",
    ]
    needed = {
        "projects_count": ("projects.view_project",),
        "members_count": ("projects.view_membership",),
        "used": _ACCOUNT,
        "limit": _ACCOUNT,
        "left": _ACCOUNT,
        "share_used": _ACCOUNT,
        "state_words": _ACCOUNT,
        BucketShown: _ACCOUNT,
        StateShown: _ACCOUNT,
        "standing": _ACCOUNT,
        "usage": ORGANIZATION_USAGE,
    }
    links = {"more": ("more about it", _more)}
    inlines = [ProjectInline, MembershipInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        """Return the organizations with their counts and the chosen bucket's published state."""
        projects = Project.objects.filter(organization=OuterRef("pk")).order_by()
        members = Membership.objects.filter(organization=OuterRef("pk")).order_by()
        counted = (
            super()
            .get_queryset(request)
            .annotate(projects_total=_count(projects), members_total=_count(members))
        )
        return with_standing(counted, "pk", bucket_shown(request))

    def get_urls(self) -> list[URLPattern]:
        """Return the admin's paths and those of the usage reports."""
        reports = (("usage", pages.usage_page), ("backtest", pages.backtest_page))
        own = [
            path(
                f"<uuid:organization_id>/{name}/",
                self.admin_site.admin_view(page),
                name=f"projects_organization_{name}",
            )
            for name, page in reports
        ]
        tables = (("", "", pages.table_page), (".csv", "_csv", pages.table_csv))
        own += [
            path(
                f"<uuid:organization_id>/usage/<slug:table>{ending or '/'}",
                self.admin_site.admin_view(page),
                name=f"projects_organization_table{suffix}",
            )
            for ending, suffix, page in tables
        ]
        return own + super().get_urls()

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: an organization is deactivated, because its booked usage has to stay."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save through billing, which decides about credits.

        If access to the unmetered gateway changed, announce the organization's keys, because caches
        hold their old permissions.
        """
        if not change:
            created = organizations.create_organization(obj.name)
            obj.pk, obj.created_at = created.pk, created.created_at
            obj._state.adding = False
        super().save_model(request, obj, form, change=True)
        if obj.is_active != form.initial.get("is_active", True):
            organizations.set_organization_active(
                obj,
                obj.is_active,
                actor=request.user.get_username(),
                reason=form.cleaned_data["reason"],
            )
        if change and "unmetered_gateway" in form.changed_data:
            keys = obj.personal_api_keys.filter(revoked_at=None)
            revocation.announce(keys.values_list("sha256", flat=True))

    @admin.display(description="projects", ordering="projects_total")
    def projects_count(self, organization: Any) -> str:
        """Return how many projects it has."""
        return f"{organization.projects_total:,}"

    @admin.display(description="members", ordering="members_total")
    def members_count(self, organization: Any) -> str:
        """Return how many members it has."""
        return f"{organization.members_total:,}"

    @admin.display(description="usage")
    def usage(self, organization: Any) -> SafeString:
        """Return a link to its usage report."""
        page = reverse("admin:projects_organization_usage", args=[organization.pk])
        return format_html('<a href="{}">Usage</a>', page)

    @admin.display(description="where it stands")
    def standing(self, organization: Any) -> SafeString | str:
        """Return a table of the published state of each bucket, in credits."""
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
                        state_in_words(state.state),
                        f": {in_words(state.reason)}" if state.reason else "",
                        display(state.usage_micro),
                        "unlimited" if state.limit_micro is None else display(state.limit_micro),
                        display(state.remaining_micro),
                        moment(state.resets_at, state.time_zone) if state.resets_at else "–",
                    )
                    for state in rows
                ),
            ),
        )


@admin.register(Project)
class ProjectAdmin(NamedSearch, admin.ModelAdmin[Project]):
    """Projects. Rotating a project's API token does not lift its limit."""

    list_display = ["name", "organization", "api_token", "created_at"]
    list_filter = ["organization__is_active"]
    list_select_related = ["organization"]
    search_fields = ["name", "organization__name"]
    search_ids = ["api_token"]
    named_by = ["name", "organization__name"]
    autocomplete_fields = ["organization"]
    readonly_fields = ["api_token", "created_at"]
    fields = ["name", "organization", "api_token", "created_at"]
    actions = ["rotate_api_tokens"]

    def get_readonly_fields(self, _request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the read-only fields.

        The organization of an existing project is one, because its usage was booked there.
        """
        return [*self.readonly_fields, *(["organization"] if obj else [])]

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: its booked usage has to stay."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Create projects through billing, so that limits apply to them from the start."""
        if change:
            super().save_model(request, obj, form, change)
            return
        created = organizations.create_project(obj.organization, obj.name)
        obj.pk = created.pk
        obj.refresh_from_db()

    @admin.action(
        description="Rotate the API tokens of the selected projects", permissions=["change"]
    )
    def rotate_api_tokens(
        self, request: HttpRequest, projects: QuerySet[Project]
    ) -> TemplateResponse | None:
        """Give each project a new token, after a second look. The old one stops working at once."""
        look = SecondLook(
            self,
            request,
            projects.order_by("pk"),
            title="Rotate API tokens",
            effect=_effect_of_rotation,
            button="Rotate these tokens",
        )
        if not look.is_confirmed:
            return look.answer
        for project in look.rows:
            organizations.rotate_api_token(
                project, actor=request.user.get_username(), reason=look.reason
            )
        self.message_user(request, f"{len(look.rows)} API token(s) rotated.", messages.SUCCESS)
        return None


def _effect_of_rotation(project: Project) -> str:
    return (
        f"{project} gets a new API token. {project.api_token} stops working for good: whatever "
        "still uses it, such as another billing system that sets limits by hand, no longer reaches "
        "the project. A limited project stays limited."
    )
