"""Admin pages for the audit trail and threshold notices."""

from django.contrib import admin
from django.utils.safestring import SafeString

from billing.admin.read_only import ReadOnly, credits_column, indented
from billing.admin.words import audit_sentence
from billing.models import AuditEntry, ThresholdNotice
from projects.admin_parts.named_search import NamedSearch


@admin.register(AuditEntry)
class AuditEntryAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[AuditEntry]):
    """Who changed what, when and why."""

    list_display = ["at", "action", "organization", "sentence", "actor", "reason"]
    fields = ["at", "action", "organization", "sentence", "actor", "reason", "all_details"]
    list_filter = ["action", "at"]
    list_select_related = ["organization"]
    search_fields = ["organization__name", "actor", "reason"]

    @admin.display(description="what")
    def sentence(self, entry: AuditEntry) -> str:
        """Return what was changed, in words."""
        return audit_sentence(entry)

    @admin.display(description="all details")
    def all_details(self, entry: AuditEntry) -> SafeString:
        """Return everything that was recorded, with amounts in micro-credits."""
        return indented(entry.details)


@admin.register(ThresholdNotice)
class ThresholdNoticeAdmin(NamedSearch, ReadOnly, admin.ModelAdmin[ThresholdNotice]):
    """Which accounts reached a threshold, or had credits again."""

    list_display = ["noticed_at", "account", "percent", "usage", "period_start", "round"]
    list_filter = ["percent", "account__resource", "noticed_at"]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name"]
    usage = credits_column("usage_micro", "credits used")
