"""Admin page for caps of a project, a user or each run."""

from typing import Any

from django import forms
from django.contrib import admin

from billing.admin.allowances import AllowanceAdmin, AllowanceForm, CreditsField
from billing.allowances.caps import check_cap, set_cap
from billing.credits import display
from billing.models import Account, Cap


class CapForm(AllowanceForm):
    """The form for a new cap. It applies to the whole of the current period."""

    credits = CreditsField(required=False, label="Credits", help_text="Empty: not capped.")

    class Meta:
        model = Cap
        fields = ["account", "scope", "subject", "credits", "reason"]

    def clean(self) -> dict[str, Any]:
        """Reject an invalid cap."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if {"account", "scope", "subject", "credits"} <= given.keys():
            try:
                check_cap(
                    given["account"].organization,
                    given["scope"],
                    given["subject"],
                    given["credits"],
                )
            except ValueError as error:
                raise forms.ValidationError(str(error)) from error
        return given


@admin.register(Cap)
class CapAdmin(AllowanceAdmin):
    """What single projects, users and runs can use, now and in the past."""

    form = CapForm
    list_display = ["set_at", "account", "scope", "subject", "cap", "actor", "reason"]
    list_filter = ["scope", "account__resource"]
    search_fields = [*AllowanceAdmin.search_fields, "subject"]
    date_hierarchy = "set_at"
    shown = ["account", "scope", "subject", "cap", "set_at", "actor", "reason"]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> Cap:
        """Set the cap."""
        credits = given.pop("credits")
        scope = given.pop("scope")
        return set_cap(account.organization, account.resource, scope, credits, **given, **who)

    @admin.display(description="credits", ordering="cap_micro")
    def cap(self, cap: Cap) -> str:
        """The cap in credits, or "not capped"."""
        return "not capped" if cap.cap_micro is None else display(cap.cap_micro)
