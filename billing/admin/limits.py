"""Forms that change what may be used: limits and top-ups, each with a reason."""

import zoneinfo
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from billing.admin.allowances import AllowanceAdmin, AllowanceForm, CreditsField
from billing.admin.read_only import actor, credits_column, number
from billing.allowances.grants import (
    GrantRequest,
    check_times,
    find_grant_by_key,
    grant_credits,
    void_grant,
)
from billing.allowances.limits import set_limit
from billing.credits import display, exact
from billing.models import Account, CreditGrant, Limit


class PercentsField(forms.CharField):
    """Percents as a person writes them: 80, 100."""

    def clean(self, value: Any) -> Any:
        """Return them as numbers between 1 and 100."""
        words = str(super().clean(value)).replace(",", " ").split()
        percents = [number(word) for word in words]
        if not all(1 <= percent <= 100 for percent in percents):
            raise forms.ValidationError("Wanted: percents between 1 and 100, such as 80, 100.")
        return percents


class LimitForm(AllowanceForm):
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
class LimitAdmin(AllowanceAdmin):
    """What organizations may use per period, now and before."""

    form = LimitForm
    list_display = ["set_at", "account", "limit", "mode", "actor", "reason"]
    list_filter = ["mode", "account__resource"]
    date_hierarchy = "set_at"
    shown = [
        *("account", "limit", "mode", "grace_days", "anchor_day", "time_zone", "thresholds"),
        *("set_at", "actor", "reason"),
    ]

    def allow(self, account: Account, given: dict[str, Any], **who: Any) -> Limit:
        """Set the limit."""
        credits = given.pop("credits")
        return set_limit(account.organization, account.resource, credits, **given, **who)

    def initial_of(self, account: Account) -> dict[str, Any]:
        """Begin with what holds now."""
        now = Limit.objects.filter(account=account).first()
        if now is None:
            return {}
        kept = ("mode", "grace_days", "anchor_day", "time_zone")
        initial = {name: getattr(now, name) for name in kept}
        initial["thresholds"] = ", ".join(map(str, now.thresholds))
        if now.limit_micro is not None:
            initial["credits"] = exact(now.limit_micro)
        return initial

    @admin.display(description="credits per period", ordering="limit_micro")
    def limit(self, limit: Limit) -> str:
        """The amount, or that there is none."""
        return "unlimited" if limit.limit_micro is None else display(limit.limit_micro)


class CreditGrantForm(AllowanceForm):
    """A top-up. A form that is sent twice, by a double click or a retry, tops up once."""

    credits = CreditsField(label="Credits")
    starts_at = forms.SplitDateTimeField(
        required=False, widget=AdminSplitDateTime, help_text="UTC. Empty: now."
    )
    form_key = forms.CharField(
        required=False, widget=forms.HiddenInput, initial=lambda: uuid4().hex
    )

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
        if not self.errors:
            self._refuse_again(given)
        return given

    def _refuse_again(self, given: dict[str, Any]) -> None:
        """Say of a form that was sent before what came of it."""
        asked = GrantRequest(
            *(given[name] for name in ("credits", "starts_at", "expires_at", "priority"))
        )
        try:
            granted = find_grant_by_key(given["account"], given["form_key"], asked)
        except ValueError as error:
            self.add_error(None, f"{error} Open the form anew for one more.")
        else:
            if granted is not None:
                made = f"made at {granted.created_at:%Y-%m-%d %H:%M:%S} UTC"
                self.add_error(
                    None, f"This top-up was {made} already. Open the form anew for one more."
                )


@admin.register(CreditGrant)
class CreditGrantAdmin(AllowanceAdmin):
    """Top-ups: credits beside the limit. They can be voided, never changed."""

    form = CreditGrantForm
    list_display = [
        *("created_at", "account", "amount", "starts_at", "expires_at", "voided_at"),
        *("priority", "actor", "reason"),
    ]
    list_filter = ["account__resource", ("voided_at", admin.EmptyFieldListFilter)]
    date_hierarchy = "created_at"
    actions = ["void"]
    amount = credits_column("amount_micro", "credits")
    shown = [
        *("account", "amount", "starts_at", "expires_at", "voided_at", "priority"),
        *("created_at", "actor", "reason"),
    ]

    def allow(self, account: Account, given: dict[str, Any], **who: Any) -> CreditGrant:
        """Grant the credits, through billing."""
        credits = given.pop("credits")
        given["idempotency_key"] = given.pop("form_key")
        return grant_credits(account.organization, account.resource, credits, **given, **who)

    @admin.action(description="Void: take back what is left", permissions=["add"])
    def void(self, request: HttpRequest, grants: QuerySet[CreditGrant]) -> None:
        """Void the chosen grants."""
        for grant in grants:
            void_grant(grant, actor=actor(request), reason="in the admin")
        self.message_user(request, f"{len(grants)} grant(s) voided.", messages.SUCCESS)
