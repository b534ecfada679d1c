"""The groups of rights that are shipped: one sees the numbers, the other manages credits.

`migrate` creates the groups and adds rights that are missing, but removes none. docs/admin.md
describes them.
"""

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission

FINANCE = "Tollgate finance"
CREDITS_MANAGERS = "Tollgate credits managers"

_NUMBERS = (
    "billing.view_account",
    "billing.view_attemptrefund",
    "billing.view_auditentry",
    "billing.view_cap",
    "billing.view_creditgrant",
    "billing.view_dailyusage",
    "billing.view_decisionrecord",
    "billing.view_limit",
    "billing.view_quarantinedevent",
    "billing.view_runrefund",
    "billing.view_thresholdnotice",
    "billing.view_usageevent",
    "billing.view_usagetotal",
    "projects.view_organization",
    "projects.view_project",
    "quota.view_setmember",
)
ROLES: dict[str, tuple[str, ...]] = {
    FINANCE: _NUMBERS,
    CREDITS_MANAGERS: (
        *_NUMBERS,
        "billing.add_cap",
        "billing.add_creditgrant",
        "billing.add_limit",
    ),
}


def create_groups(sender: AppConfig, using: str, **_options: Any) -> None:
    """Create the groups and give them their rights. Changes nothing the second time."""
    for app in ("billing", "projects", "quota"):
        # Django creates permissions app by app, and these may not exist yet.
        create_permissions(apps.get_app_config(app), verbosity=0, using=using)
    rows = Permission.objects.using(using).select_related("content_type")
    known = {f"{row.content_type.app_label}.{row.codename}": row for row in rows}
    for name, rights in ROLES.items():
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*(known[right] for right in rights))
