"""The admin's pages of users, groups, OAuth clients and projects of channels."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from oauth2_provider.admin import ApplicationAdmin

from projects.admin_parts.named_search import NamedSearch
from projects.models import (
    ChannelProject,
    Membership,
    OAuthAccessToken,
    OAuthApplication,
    OAuthGrant,
    OAuthIDToken,
    OAuthRefreshToken,
    User,
)

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
class GroupAdmin(NamedSearch, DjangoGroupAdmin):
    """Groups of rights. Only superusers give rights."""

    named_by = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user is a superuser, because a new group can have any right."""
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, _obj: Any = None) -> bool:
        """Return whether the user is a superuser: others could give their own group any right."""
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, _obj: Any = None) -> bool:
        """Return whether the user is a superuser, because deleting a group removes rights."""
        return bool(request.user.is_superuser)


@admin.register(User)
class UserAdmin(NamedSearch, DjangoUserAdmin[User]):
    """Users. Deactivating a user ends their sessions and credentials at once."""

    named_by = ["username"]

    list_display = ["username", "email", "is_active", "is_staff", "last_login"]
    inlines = [MembershipInline]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False for users with more rights: a new password would hand over those rights."""
        if obj is not None and not _has_all_rights_of(obj, request.user):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False for users who have more rights."""
        if obj is not None and not _has_all_rights_of(obj, request.user):
            return False
        return super().has_delete_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the read-only fields. For everybody but superusers, they include the rights."""
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


@admin.register(ChannelProject)
class ChannelProjectAdmin(NamedSearch, admin.ModelAdmin[ChannelProject]):
    """Channels that serve another project than the rest of their workspace."""

    list_display = ["channel_id", "workspace", "project"]
    list_filter = ["project__organization"]
    list_select_related = ["workspace", "project__organization"]
    search_fields = ["workspace__name", "project__name"]
    search_ids = ["channel_id"]
    autocomplete_fields = ["workspace", "project"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChannelProject]:
        """Return the rows without bot tokens, which no page needs to decrypt."""
        return super().get_queryset(request).defer("workspace__bot_token")


@admin.register(OAuthApplication)
class OAuthApplicationAdmin(NamedSearch, ApplicationAdmin):
    """OAuth clients, such as desktop applications: public, with the authorization code grant."""

    list_display = ["name", "client_id", "client_type", "created"]
    list_filter = ["client_type"]
    search_fields = ["name"]
    search_ids = ["client_id"]
    named_by = ["name"]
    autocomplete_fields = ["user"]
    raw_id_fields = ()
    fields = ["name", "client_id", "client_type", "client_secret", "redirect_uris"]
    radio_fields = {"client_type": admin.HORIZONTAL}
    readonly_fields = ()

    def get_changeform_initial_data(self, _request: HttpRequest) -> dict[str, Any]:
        """Return a public client's values, because a desktop application can't keep a secret."""
        return {
            "client_type": OAuthApplication.CLIENT_PUBLIC,
            "redirect_uris": "http://127.0.0.1/callback",
        }
