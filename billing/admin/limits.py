"""Admin pages for limits and top-ups."""

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
    """A field for percents, such as "80, 100"."""

    def clean(self, value: Any) -> Any:
        """Return a list of numbers between 1 and 100."""
        words = str(super().clean(value)).replace(",", " ").split()
        percents = [number(word) for word in words]
        if not all(1 <= percent <= 100 for percent in percents):
            raise forms.ValidationError("Enter percents between 1 and 100, such as 80, 100.")
        return percents


class LimitForm(AllowanceForm):
    """The form for a new limit. It applies to the whole of the current period."""

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
            "account",
            "credits",
            "mode",
            "grace_days",
            "anchor_day",
            "time_zone",
            "thresholds",
            "reason",
        ]

    def clean_time_zone(self) -> str:
        """Reject an unknown time zone."""
        zone = str(self.cleaned_data["time_zone"])
        if zone not in zoneinfo.available_timezones():
            raise forms.ValidationError("Unknown time zone. Enter one such as Europe/Berlin.")
        return zone


@admin.register(Limit)
class LimitAdmin(AllowanceAdmin):
    """What organizations can use per period, now and in the past."""

    form = LimitForm
    list_display = ["set_at", "account", "limit", "mode", "actor", "reason"]
    list_filter = ["mode", "account__resource"]
    date_hierarchy = "set_at"
    shown = [
        "account",
        "limit",
        "mode",
        "grace_days",
        "anchor_day",
        "time_zone",
        "thresholds",
        "set_at",
        "actor",
        "reason",
    ]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> Limit:
        """Set the limit."""
        credits = given.pop("credits")
        return set_limit(account.organization, account.resource, credits, **given, **who)

    def initial_of(self, account: Account) -> dict[str, Any]:
        """Return the values of the limit in force."""
        limit = Limit.objects.filter(account=account).first()
        if limit is None:
            return {}
        copied = ("mode", "grace_days", "anchor_day", "time_zone")
        initial = {name: getattr(limit, name) for name in copied}
        initial["thresholds"] = ", ".join(map(str, limit.thresholds))
        if limit.limit_micro is not None:
            initial["credits"] = exact(limit.limit_micro)
        return initial

    @admin.display(description="credits per period", ordering="limit_micro")
    def limit(self, limit: Limit) -> str:
        """The limit in credits, or "unlimited"."""
        return "unlimited" if limit.limit_micro is None else display(limit.limit_micro)


class CreditGrantForm(AllowanceForm):
    """The form for a top-up. If it is sent twice, by a double click or a retry, it tops up once."""

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
        """Reject a grant that could never be spent, or a form that was already sent."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        now = timezone.now()
        try:
            check_times(given.get("starts_at") or now, given.get("expires_at"), now)
        except ValueError as error:
            self.add_error(None, str(error))
        if given.get("credits") == 0:
            self.add_error("credits", "A top-up must be more than 0.")
        if not self.errors:
            self._reject_repeat(given)
        return given

    def _reject_repeat(self, given: dict[str, Any]) -> None:
        """Add an error if the form was already sent. It says when the top-up was made."""
        asked = GrantRequest(
            *(given[name] for name in ("credits", "starts_at", "expires_at", "priority"))
        )
        try:
            granted = find_grant_by_key(given["account"], given["form_key"], asked)
        except ValueError as error:
            self.add_error(None, f"{error} Open a new form to make another one.")
        else:
            if granted is not None:
                made_at = f"{granted.created_at:%Y-%m-%d %H:%M:%S} UTC"
                self.add_error(
                    None,
                    f"This top-up was already made at {made_at}. "
                    "Open a new form to make another one.",
                )


@admin.register(CreditGrant)
class CreditGrantAdmin(AllowanceAdmin):
    """Top-ups: credits in addition to the limit. They can be voided, but not changed."""

    form = CreditGrantForm
    list_display = [
        "created_at",
        "account",
        "amount",
        "starts_at",
        "expires_at",
        "voided_at",
        "priority",
        "actor",
        "reason",
    ]
    list_filter = ["account__resource", ("voided_at", admin.EmptyFieldListFilter)]
    date_hierarchy = "created_at"
    actions = ["void"]
    amount = credits_column("amount_micro", "credits")
    shown = [
        "account",
        "amount",
        "starts_at",
        "expires_at",
        "voided_at",
        "priority",
        "created_at",
        "actor",
        "reason",
    ]

    def create(self, account: Account, given: dict[str, Any], **who: Any) -> CreditGrant:
        """Grant the credits."""
        credits = given.pop("credits")
        given["idempotency_key"] = given.pop("form_key")
        return grant_credits(account.organization, account.resource, credits, **given, **who)

    @admin.action(description="Void: take back what is left", permissions=["add"])
    def void(self, request: HttpRequest, grants: QuerySet[CreditGrant]) -> None:
        """Void the selected grants."""
        for grant in grants:
            void_grant(grant, actor=actor(request), reason="in the admin")
        self.message_user(request, f"{len(grants)} grant(s) voided.", messages.SUCCESS)
