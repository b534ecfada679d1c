"""The admin's list of limited projects: since when, until when, and why."""

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from projects.admin_parts.named_search import NamedSearch
from quota.models import SetMember
from quota.published.limited_set import expires_at
from quota.reason_words import WORDS, in_words


class InForceFilter(admin.SimpleListFilter):
    """Shows only blocks or only graces."""

    title = "in force"
    parameter_name = "in_force"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the two choices."""
        return [("block", "limited"), ("grace", "in grace, not limited yet")]

    def queryset(
        self, _request: HttpRequest, queryset: QuerySet[SetMember]
    ) -> QuerySet[SetMember] | None:
        """Return the members in the chosen state."""
        if self.value() is None:
            return queryset
        return queryset.filter(limited_until__isnull=self.value() == "grace")


class ReasonFilter(admin.SimpleListFilter):
    """Filters by the reason, in words."""

    title = "reason"
    parameter_name = "reason"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        """Return the reasons."""
        return list(WORDS.items())

    def queryset(
        self, _request: HttpRequest, queryset: QuerySet[SetMember]
    ) -> QuerySet[SetMember] | None:
        """Return the members with the chosen reason."""
        return queryset if self.value() is None else queryset.filter(reason=self.value())


@admin.register(SetMember)
class LimitedProjectAdmin(NamedSearch, admin.ModelAdmin[SetMember]):
    """The limited projects: published by billing, or set by hand in Redis.

    Nothing can be changed here. Limits and grants change what is published; `ZREM` removes what was
    set by hand.
    """

    list_display = ["name", "organization", "resource", "until", "why", "since", "origin"]
    list_filter = ["resource", "origin", ReasonFilter, InForceFilter]
    list_select_related = ["organization", "project__organization"]
    search_fields = ["organization__name", "project__name"]
    search_ids = ["token"]
    named_by = ["project__name"]
    ordering = ["-since", "pk"]
    fields = ["name", "organization", "resource", "origin", "why", "since", "until", "token"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[SetMember]:
        """Return what is in force now, without tombstones and expired blocks."""
        now = timezone.now().timestamp()
        in_force = Q(limited_until__gt=now) | Q(suspended_until__gt=now)
        return super().get_queryset(request).filter(in_force)

    @admin.display(description="project", ordering="project__name")
    def name(self, member: SetMember) -> str:
        """Return the project's name, or the member itself if it belongs to no project."""
        return str(member.project) if member.project else f"no project: {member.token}"

    @admin.display(description="until", ordering="limited_until")
    def until(self, member: SetMember) -> datetime | str | None:
        """Return when the block or grace ends by itself."""
        if member.limited_until is None:
            return expires_at(member.suspended_until)
        return expires_at(member.limited_until) or "further notice"

    @admin.display(description="why", ordering="reason")
    def why(self, member: SetMember) -> str:
        """Return the reason in words."""
        reason = in_words(member.reason)
        return reason if member.limited_until is not None else f"in grace: {reason}"

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Return False: blocks are decided, or set by hand in Redis."""
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: these rows only mirror what is in Redis."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Return False: the next comparison would bring the row back."""
        return False
