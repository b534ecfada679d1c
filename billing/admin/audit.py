"""Admin pages for the audit trail and threshold notices."""

from django.contrib import admin

from billing.admin.read_only import ReadOnly, credits_column
from billing.models import AuditEntry, ThresholdNotice


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly, admin.ModelAdmin[AuditEntry]):
    """Who changed what, when and why."""

    list_display = ["at", "action", "organization", "actor", "reason", "details"]
    list_filter = ["action"]
    list_select_related = ["organization"]
    search_fields = ["organization__name", "actor", "reason"]
    date_hierarchy = "at"


@admin.register(ThresholdNotice)
class ThresholdNoticeAdmin(ReadOnly, admin.ModelAdmin[ThresholdNotice]):
    """Which accounts reached a threshold, or had credits again."""

    list_display = ["noticed_at", "account", "percent", "usage", "period_start"]
    list_filter = ["percent", "account__resource"]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name"]
    date_hierarchy = "noticed_at"
    usage = credits_column("usage_micro", "credits used")
