"""The form that caps a project, a user or each run, with a reason."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from billing.admin.limits import CreditsField
from billing.admin.read_only import AddOnly, actor, number
from billing.caps import check_cap, set_cap
from billing.credits import display
from billing.models import Account, Cap


class CapForm(forms.ModelForm):
    """A new cap; it holds from now on, for the whole of the current period."""

    credits = CreditsField(required=False, label="Credits", help_text="Empty: not capped.")
    reason = forms.CharField(max_length=500, help_text="For the audit trail.")

    class Meta:
        model = Cap
        fields = ["account", "scope", "subject", "credits", "reason"]

    def clean(self) -> dict[str, Any]:
        """Refuse a cap that cannot be."""
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
class CapAdmin(AddOnly, admin.ModelAdmin):
    """What single projects, users and runs may use, now and before."""

    form = CapForm
    list_display = ["set_at", "account", "scope", "subject", "cap", "actor", "reason"]
    list_filter = ["scope", "account__resource"]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name", "subject", "actor", "reason"]
    autocomplete_fields = ["account"]
    date_hierarchy = "set_at"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask for credits, show what was set."""
        if obj is None:
            return super().get_fields(request, obj)
        return ["account", "scope", "subject", "cap", "set_at", "actor", "reason"]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin with the account that a link names."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        account = Account.objects.filter(pk=number(initial.get("account"))).first()
        return initial | {"account": account and account.pk}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Set it, and so publish what follows."""
        given = form.cleaned_data
        made = set_cap(
            given["account"].organization,
            given["account"].resource,
            given["scope"],
            given["credits"],
            subject=given["subject"],
            actor=actor(request),
            reason=given["reason"],
        )
        obj.pk, obj.set_at = made.pk, made.set_at

    @admin.display(description="credits", ordering="cap_micro")
    def cap(self, cap: Cap) -> str:
        """The amount, or that there is none."""
        return "not capped" if cap.cap_micro is None else display(cap.cap_micro)
