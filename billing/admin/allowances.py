"""What the forms for limits, caps and top-ups have in common."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode

from billing.admin.read_only import actor, number
from billing.credits import parse_credits
from billing.models import Account


class CreditsField(forms.CharField):
    """An amount of credits as a person writes it, in micro-credits."""

    def clean(self, value: Any) -> Any:
        """Return micro-credits; None for an empty field that may be empty."""
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_credits(text)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


class AllowanceForm(forms.ModelForm):
    """A row that is written once, with a reason."""

    reason = forms.CharField(max_length=500, help_text="For the audit trail.")


class AllowanceAdmin(admin.ModelAdmin):
    """Rows are added, by whoever may, and then only shown.

    A subclass names the fields that are `shown` and writes its rows in `allow`.
    """

    shown: Sequence[str] = ()
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name", "actor", "reason"]
    autocomplete_fields = ["account"]

    def allow(self, account: Account, given: dict[str, Any], **who: Any) -> Model:
        """Write what the form gives down for an account, and so publish what follows."""
        raise NotImplementedError

    def initial_of(self, _account: Account) -> dict[str, Any]:
        """Return what the form begins with for an account."""
        return {}

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Nothing is changed."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Nothing is deleted."""
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask for what the form has, show what was written."""
        return super().get_fields(request, obj) if obj is None else self.shown

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin with the account that a link names."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        account = Account.objects.filter(pk=number(initial.get("account"))).first()
        if account is None:
            return initial | {"account": None}
        return initial | {"account": account.pk} | self.initial_of(account)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write the row through billing."""
        given = dict(form.cleaned_data)
        account, reason = given.pop("account"), given.pop("reason")
        obj.pk = self.allow(account, given, actor=actor(request), reason=reason).pk
        obj.refresh_from_db()

    def response_post_save_add(self, request: HttpRequest, obj: Any) -> HttpResponseRedirect:
        """Show what came of it: the organization's usage, to who may see that."""
        if not request.user.has_perms(["projects.view_organization", "billing.view_account"]):
            return super().response_post_save_add(request, obj)
        page = reverse("admin:projects_organization_usage", args=[obj.account.organization_id])
        return HttpResponseRedirect(f"{page}?{urlencode({'resource': obj.account.resource})}")
