"""Forms that change what may be used: limits and top-ups, each with a reason."""

import zoneinfo
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from billing.admin.read_only import AddOnly, actor, credits_column, number
from billing.credits import display, exact, parse_credits
from billing.grants import check_times, grant_credits, void_grant
from billing.limits import set_limit
from billing.models import Account, CreditGrant, Limit


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


class PercentsField(forms.CharField):
    """Percents as a person writes them: 80, 100."""

    def clean(self, value: Any) -> Any:
        """Return them as numbers between 1 and 100."""
        words = str(super().clean(value)).replace(",", " ").split()
        percents = [number(word) for word in words]
        if not all(1 <= percent <= 100 for percent in percents):
            raise forms.ValidationError("Wanted: percents between 1 and 100, such as 80, 100.")
        return percents


class LimitForm(forms.ModelForm):
    """A new limit; it holds from now on, for the whole of the current period."""

    credits = CreditsField(
        required=False, label="Credits per period", help_text="Empty: unlimited."
    )
    thresholds = PercentsField(
        initial="80, 100", required=False, help_text="Percents at which to warn, once per period."
    )
    grace_days = forms.IntegerField(
        min_value=0,
        max_value=366,
        initial=0,
        help_text="Days between reaching the limit and the refusal, where there is grace.",
    )
    reason = forms.CharField(max_length=500, help_text="For the audit trail.")

    class Meta:
        model = Limit
        fields = [
            *("account", "credits", "mode", "grace_days", "anchor_day", "time_zone"),
            *("thresholds", "reason"),
        ]

    def clean_time_zone(self) -> str:
        """Refuse a zone that nobody knows."""
        zone = str(self.cleaned_data["time_zone"])
        if zone not in zoneinfo.available_timezones():
            raise forms.ValidationError("This time zone is unknown; wanted: such as Europe/Berlin.")
        return zone


@admin.register(Limit)
class LimitAdmin(AddOnly, admin.ModelAdmin):
    """What organizations may use per period, now and before."""

    form = LimitForm
    list_display = ["set_at", "account", "limit", "mode", "actor", "reason"]
    list_filter = ["mode", "account__resource"]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name", "actor", "reason"]
    autocomplete_fields = ["account"]
    date_hierarchy = "set_at"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask for credits, show what was set."""
        if obj is None:
            return super().get_fields(request, obj)
        shown = ["account", "limit", "mode", "grace_days", "anchor_day", "time_zone"]
        return [*shown, "thresholds", "set_at", "actor", "reason"]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin with what holds now."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        account = Account.objects.filter(pk=number(initial.get("account"))).first()
        initial["account"] = account and account.pk
        now = Limit.objects.filter(account=account).first() if account else None
        if now is not None:
            kept = ("mode", "grace_days", "anchor_day", "time_zone")
            initial |= {name: getattr(now, name) for name in kept}
            initial["thresholds"] = ", ".join(map(str, now.thresholds))
            if now.limit_micro is not None:
                initial["credits"] = exact(now.limit_micro)
        return initial

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Set it, and so publish what follows."""
        given = form.cleaned_data
        made = set_limit(
            given["account"].organization,
            given["account"].resource,
            given["credits"],
            mode=given["mode"],
            grace_days=given["grace_days"],
            anchor_day=given["anchor_day"],
            time_zone=given["time_zone"],
            thresholds=given["thresholds"],
            actor=actor(request),
            reason=given["reason"],
        )
        obj.pk, obj.set_at = made.pk, made.set_at

    @admin.display(description="credits per period", ordering="limit_micro")
    def limit(self, limit: Limit) -> str:
        """The amount, or that there is none."""
        return "unlimited" if limit.limit_micro is None else display(limit.limit_micro)


class CreditGrantForm(forms.ModelForm):
    """A top-up."""

    credits = CreditsField(label="Credits")
    starts_at = forms.SplitDateTimeField(
        required=False, widget=AdminSplitDateTime, help_text="UTC. Empty: now."
    )
    reason = forms.CharField(max_length=500, help_text="For the audit trail.")

    class Meta:
        model = CreditGrant
        fields = ["account", "credits", "starts_at", "expires_at", "priority", "reason"]

    def clean(self) -> dict[str, Any]:
        """Refuse what could never be spent."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        now = timezone.now()
        try:
            check_times(given.get("starts_at") or now, given.get("expires_at"), now)
        except ValueError as error:
            self.add_error(None, str(error))
        if given.get("credits") == 0:
            self.add_error("credits", "A top-up is more than nothing.")
        return given


@admin.register(CreditGrant)
class CreditGrantAdmin(AddOnly, admin.ModelAdmin):
    """Top-ups: credits beside the limit. They can be voided, never changed."""

    form = CreditGrantForm
    list_display = [
        *("created_at", "account", "amount", "starts_at", "expires_at", "voided_at"),
        *("priority", "actor", "reason"),
    ]
    list_filter = ["account__resource", ("voided_at", admin.EmptyFieldListFilter)]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name", "actor", "reason"]
    autocomplete_fields = ["account"]
    date_hierarchy = "created_at"
    actions = ["void"]
    amount = credits_column("amount_micro", "credits")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask for credits, show what was granted."""
        if obj is None:
            return super().get_fields(request, obj)
        shown = ["account", "amount", "starts_at", "expires_at", "voided_at", "priority"]
        return [*shown, "created_at", "actor", "reason"]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Grant it, and so publish what follows."""
        given = form.cleaned_data
        made = grant_credits(
            given["account"].organization,
            given["account"].resource,
            given["credits"],
            starts_at=given["starts_at"],
            expires_at=given["expires_at"],
            priority=given["priority"],
            actor=actor(request),
            reason=given["reason"],
        )
        obj.pk, obj.created_at = made.pk, made.created_at

    @admin.action(description="Void: take back what is left", permissions=["add"])
    def void(self, request: HttpRequest, grants: QuerySet[CreditGrant]) -> None:
        """Void the chosen grants."""
        for grant in grants:
            void_grant(grant, actor=actor(request), reason="in the admin")
        self.message_user(request, f"{len(grants)} grant(s) voided.", messages.SUCCESS)
