"""The audit trail."""

from django.contrib import admin

from billing.admin.read_only import ReadOnly
from billing.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, admin.ModelAdmin):
    """Who changed what may be used, when and why."""

    list_display = ["at", "action", "organization", "actor", "reason", "details"]
    list_filter = ["action"]
    list_select_related = ["organization"]
    search_fields = ["organization__name", "actor", "reason"]
    date_hierarchy = "at"
